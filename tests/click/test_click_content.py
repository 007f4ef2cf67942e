"""The elements in edgeos/click/elements/content.py and editing.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from click_harness import errors, fuzz, start
from click_packets import ether, icmp, ip, tcp, udp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeos.click.automaton import build
from edgeos.click.router import load
from edgeos.click.source import ClickError, Source

WORDS = st.lists(st.binary(min_size=1, max_size=6).map(lambda b: bytes(x % 3 + 97 for x in b)), min_size=1, max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORDS, st.binary(max_size=40).map(lambda b: bytes(x % 4 + 97 for x in b)), st.booleans())
def test_the_automaton_finds_what_a_plain_search_finds(words: list[bytes], data: bytes, fold: bool) -> None:
    text = data.upper() if fold else data
    assert build(words, fold).find(text) == {place for place, word in enumerate(words) if word in data}


def test_words_are_found_wherever_they_are() -> None:
    with start(
        'FromDevice(a) -> s :: Search("GET /admin", \\<90 90 90>, he, she) -> ToDevice(b); s[1] -> ToDevice(a);'
    ) as click:
        hits = [b"GET /admin HTTP/1.1", b"xx\x90\x90\x90\x90", b"ushers", b"he"]
        misses = [b"GET /admi", b"\x90\x90", b"h e", b"", b"GETGET /GET /admi"]
        for data in hits:
            assert click.push("a", data) == [("a", data)]
        for data in misses:
            assert click.push("a", data) == [("b", data)]
        assert click.read("s.matches") == "1\t1\n1\t2\n2\t3\n1\t4\n"
        assert (click.read("s.drops"), click.read("s.alerts"), click.read("s.rules")) == ("4", "0", "4")
        click.write("s.reset")
        assert click.read("s.matches") == ""


def test_only_the_payload_counts_unless_told_otherwise() -> None:
    config = """
        FromDevice(a) -> Strip(14) -> CheckIPHeader -> p :: Search(evil) -> ToDevice(b);
        FromDevice(b) -> MarkIPHeader(14) -> Search(evil, PAYLOAD false, NOCASE true) -> ToDevice(a);
    """
    source_is_evil = "101.118.105.108"  # the four letters as an address
    with start(config) as click:
        for make in (udp, tcp):
            assert click.push("a", ether(make(data=b"devils"))) == []
            assert click.push("a", ether(make(src=source_is_evil))) != []
            assert click.push("b", ether(make(src=source_is_evil))) == []
            assert click.push("b", ether(make(data=b"dEVILs"))) == []
        assert (
            click.push("a", ether(icmp(data=b"evil")), ether(ip(b"evil", proto=99)), ether(udp(data=b"evil", frag=1)))
            == []
        )


def test_rules_come_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    Path(tmp_path, "ids.rules").write_text(
        '# what is bad\n\nalert "login" login attempt\ndrop "\\<de ad be ef>"\n  drop \'it"s\' quoted\n'
    )
    config = "FromDevice(a) -> s :: Search(FILE ids.rules, NOCASE true) -> ToDevice(b);"
    with start(config, folder=tmp_path) as click:
        assert click.push("a", b"LOGIN login", bytes.fromhex("deadbeef"), b'it"s', b"fine") == [
            ("b", b"LOGIN login"),
            ("b", b"fine"),
        ]
        assert click.read("s.matches") == "1\tlogin attempt\n1\t4\n1\tquoted\n"
        assert (click.read("s.alerts"), click.read("s.drops")) == ("1", "2")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('block "x"', "alert or drop"),
        ("drop x", "a word in quotes"),
        ('drop "x', "a closing"),
        ('drop ""', "0 bytes"),
        ('drop "\\<9>"', "hexadecimal"),
        (f'drop "{"x" * 300}"', "300 bytes"),
        (f'drop "x" {"n" * 65}', "64 characters"),
    ],
)
def test_bad_rules_are_named_by_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    Path(tmp_path, "ids.rules").write_text(f'drop "fine"\n{line}\n')
    with pytest.raises(ClickError, match=r"ids\.rules:2: ") as error:
        load(Source(str(tmp_path / "x.click"), "FromDevice(a) -> Search(FILE ids.rules) -> Discard;"))
    assert problem in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    Path(tmp_path, "binary").write_bytes(b"\xff\xfe")
    Path(tmp_path, "folder").mkdir()
    for name in ("missing", "binary", "folder"):
        with pytest.raises(ClickError, match="cannot be read"):
            load(Source(str(tmp_path / "x.click"), f"FromDevice(a) -> Search(FILE {name}) -> Discard;"))


def test_a_router_knows_whether_its_files_are_the_same(tmp_path: Path) -> None:
    rules = Path(tmp_path, "ids.rules")
    rules.write_text('drop "x"\n')
    router = load(Source(str(tmp_path / "x.click"), "FromDevice(a) -> Search(FILE ids.rules) -> Discard;"))
    assert router.has_same_files()
    rules.write_text('drop "y"\n')
    assert not router.has_same_files()
    rules.unlink()
    assert not router.has_same_files()


def test_many_words_against_a_plain_search() -> None:
    source = random.Random(4)
    words = [bytes(source.choices(range(97, 123), k=source.randrange(3, 12))) for _ in range(400)]
    with start(f"FromDevice(a) -> Search({', '.join(word.decode() for word in words)}) -> ToDevice(b);") as click:
        for _ in range(60):
            data = bytearray(source.choices(range(97, 123), k=500))
            if source.random() < 0.5:
                word = source.choice(words)
                at = source.randrange(400)
                data[at : at + len(word)] = word
            expected = [] if any(word in data for word in words) else [("b", bytes(data))]
            assert click.push("a", bytes(data)) == expected


def test_align_store_and_truncate() -> None:
    config = """
        FromDevice(a) -> Strip(1) -> Align(4, 2) -> StoreData(2, \\<ff ee>) -> Truncate(10) -> ToDevice(b);
        FromDevice(b) -> Align(8, 7) -> StoreData(4, longer) -> ToDevice(a);
    """
    with start(config) as click:
        assert click.push("a", bytes(20), b"abc", b"") == [("b", b"\0\0\xff\xee" + bytes(6)), ("b", b"bc"), ("b", b"")]
        assert click.push("b", bytes(6)) == [("a", b"\0\0\0\0lo")]


def test_ip_print_keeps_a_line() -> None:
    with start(
        "FromDevice(a) -> p :: IPPrint(in, ID true, TTL true, TIMESTAMP false, PAYLOAD ASCII) -> ToDevice(b);"
    ) as click:
        assert click.read("p.last") == ""
        click.push("a", udp(data=b"hello\n"))
        line, text = click.read("p.last").split("\n")
        assert line == "in: id 1 ttl 64 10.0.0.2.5000 > 192.0.2.9.53: udp 14"
        assert text.startswith("...5")
        assert text.endswith("hello.")
        click.push("a", tcp(flags="SA"))
        assert "10.0.0.2.5000 > 192.0.2.9.80: tcp S. seq 1000 ack 2000 win 8192" in click.read("p.last")
        click.push("a", icmp(3, 1))
        assert "10.0.0.2 > 192.0.2.9: icmp type 3 code 1" in click.read("p.last")
        click.push("a", udp(frag=2, id=9))
        assert "protocol 17 (frag 9 @16)" in click.read("p.last")
        click.write("p.active", "false")
        click.push("a", udp(), b"no IP")
        assert click.read("p.count") == "4"


def test_bad_arguments() -> None:
    def one_error(element: str) -> str:
        return errors(f"FromDevice(a) -> {element} -> Discard;")[0]

    assert "2, 4 or 8" in one_error("Align(3, 0)")
    assert "less than the modulus" in one_error("Align(4, 4)")
    assert "found no word" in one_error("Search()")
    assert "1 to 256 bytes" in one_error('Search("")')
    assert "one of them" in one_error("IPPrint(CONTENTS HEX, PAYLOAD HEX)")
    assert "allowed: 4096" in one_error("Search(" + ", ".join(f"w{n}" for n in range(4097)) + ")")


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> MarkIPHeader(14) -> IPPrint(CONTENTS HEX) -> s :: Search(evil, \\<00 00>)
            -> Align(8, 3) -> ToDevice(wan);
        s[1] -> Truncate(30) -> StoreData(20, 0123456789012345) -> Search(PAYLOAD false, abc) -> IPPrint(PAYLOAD ASCII)
            -> ToDevice(lan);
    """
    fuzz(config, ["lan"], [ether(udp(data=b"evil")), ether(tcp(data=b"evil")), ether(icmp())], 4000)
