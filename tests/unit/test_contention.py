"""A listener and a port for packets that would both serve a client; addresses of devices; open files."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from edgeos import consistency, descriptors
from edgeos.descriptors import needed_descriptors, require_descriptors
from edgeos.errors import LimitError, ManifestError
from edgeos.interfaces import device_addresses
from edgeos.manifest import load_manifest
from edgeos.settings import Grants, Manifest, PortSettings, TemplateSettings

MANIFEST = """
[port.web]
kind = "{kind}"
listen = "{listen}"

[port.lan]
kind = "afpacket"
device = "eth0"

[port.wan]
kind = "afpacket"
device = "eth1"

[template.app]
source = "app.c"

[chain.edge]
path = ["lan", "app", "wan"]

[chain.web]
path = ["web", "app"]

[[rule]]
match = "from web"
chain = "web"
"""
RULE = '\n[[rule]]\nmatch = "{match}"\nchain = "edge"\n'
DROP = '\n[[rule]]\nmatch = "{match}"\ndrop = true\n'


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {
        "lo": {ipaddress.ip_address("127.0.0.1")},
        "eth0": {ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")},
    }
    (tmp_path / "app.c").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(consistency, "device_addresses", lambda: addresses)
    monkeypatch.setattr(consistency.socket, "if_nameindex", lambda: [(1, "eth0"), (2, "eth1")])


def problems(listen: str, *rules: str, kind: str = "tcp") -> tuple[str, ...]:
    Path("edge.toml").write_text(MANIFEST.format(listen=listen, kind=kind) + "".join(rules))
    try:
        load_manifest("edge.toml")
    except ManifestError as error:
        return error.problems
    return ()


def test_the_finding_says_who_fights_over_what_and_the_fix() -> None:
    assert problems("192.0.2.1:80", RULE.format(match="ip")) == (
        'edge.toml: port.web.listen: found "192.0.2.1:80", while port.lan takes packets to 192.0.2.1:80 on eth0;'
        " allowed: clients that either the listener or a chain of packets serves; drop those packets in a first"
        ' [[rule]], match = "tcp dst port 80 from lan"',
    )


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "[2001:db8::1]:80", "192.0.2.1:80"])
@pytest.mark.parametrize("match", ["any", "ip", "tcp", "port 80", "dst port 1-100", "src 10.0.0.0/8", "from lan"])
def test_rules_that_take_the_listeners_clients(listen: str, match: str) -> None:
    found = problems(listen, RULE.format(match=match))
    assert bool(found) == (not (match.startswith("src 10") and listen == "[2001:db8::1]:80"))


@pytest.mark.parametrize("match", ["udp", "non-ip", "arp", "tcp dst port 81", "dst 198.51.100.0/24", "from wan"])
def test_rules_that_leave_them_alone(match: str) -> None:
    assert problems("0.0.0.0:80", RULE.format(match=match)) == ()


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "192.0.2.9:80"])
def test_addresses_of_no_device_that_a_port_has(listen: str) -> None:
    assert problems(listen, RULE.format(match="any")) == ()


@pytest.mark.parametrize(
    ("drop", "settled"),
    [
        ("tcp dst port 80 from lan", True),
        ("tcp dst port 80", True),
        ("from lan", True),
        ("tcp dst port 80 from wan", False),
        ("src 10.0.0.0/8 tcp dst port 80", False),
        ("udp dst port 80", False),
    ],
)
def test_a_first_rule_that_drops_the_packets_settles_it(drop: str, settled: bool) -> None:
    assert (problems("0.0.0.0:80", DROP.format(match=drop), RULE.format(match="any")) == ()) == settled


def test_the_rule_of_higher_priority_is_asked_first() -> None:
    drop = DROP.format(match="tcp dst port 80") + "priority = 5\n"
    assert problems("0.0.0.0:80", RULE.format(match="any"), drop) == ()


def test_packets_that_a_rule_passes_on_reach_the_listener_too() -> None:
    passing = '\n[[rule]]\nmatch = "{}"\npass = ["lan", "wan"]\n'
    assert problems("0.0.0.0:80", passing.format("tcp"))
    assert problems("0.0.0.0:80", passing.format("udp")) == ()


def test_datagrams_count_too() -> None:
    assert problems("0.0.0.0:53", RULE.format(match="udp"), kind="udp")
    assert problems("0.0.0.0:53", RULE.format(match="tcp"), kind="udp") == ()


@pytest.mark.parametrize(("rule", "fights"), [("src port 80", True), ("src port 81", False), ("dst port 81", True)])
def test_rules_see_the_far_end_from_the_clients_side(rule: str, fights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, "device_addresses", lambda: {"eth1": {ipaddress.ip_address("192.0.2.1")}})
    found = problems("192.0.2.1:80", RULE.format(match=rule))
    assert bool(found) == fights
    if found:
        assert found[0].endswith('match = "tcp src port 80 from wan"')
        assert problems("192.0.2.1:80", DROP.format(match="tcp src port 80 from wan"), RULE.format(match=rule)) == ()


def test_the_loopback_device_has_its_address() -> None:
    assert ipaddress.ip_address("127.0.0.1") in device_addresses()["lo"]


# ---- Open files ----


def listening(connections: int, *, connects: bool = False) -> Manifest:
    port = PortSettings(name="web", kind="tcp", listen="127.0.0.1:80", max_connections=connections)
    template = TemplateSettings(name="t", source=Path("app.c"), grant=Grants(connect=("db",) if connects else ()))
    return Manifest(ports=(port, PortSettings(name="dns", kind="udp", listen="127.0.0.1:53")), templates=(template,))


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The process's limit of open files, played: an unprivileged process may raise the first up to the second."""
    now = {"limit": (1024, 4096)}

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > now["limit"][1]:
            raise ValueError("not allowed to raise maximum limit")
        now["limit"] = wanted

    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: now["limit"])
    monkeypatch.setattr(descriptors.resource, "setrlimit", setrlimit)
    return now


def test_open_files_that_a_node_may_need() -> None:
    assert needed_descriptors(listening(1000)) == 1256
    assert needed_descriptors(listening(1000, connects=True)) == 2256


def test_the_limit_is_raised_when_listeners_need_it(limits: dict[str, tuple[int, int]]) -> None:
    require_descriptors(listening(700))
    assert limits["limit"] == (1024, 4096)
    require_descriptors(listening(3000))
    assert limits["limit"] == (4096, 4096)


def test_a_limit_that_may_not_be_raised_is_said_with_the_fix(limits: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(LimitError) as caught:
        require_descriptors(listening(10_000))
    assert str(caught.value) == (
        "the listeners need up to 10256 open files, this process may have 4096; lower max_connections, or as root: "
        "ulimit -Hn 10256 in the shell that starts edgeos, or LimitNOFILE=10256 in its systemd unit"
    )
    assert limits["limit"] == (1024, 4096)


def test_without_listeners_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: pytest.fail("asked"))
    require_descriptors(Manifest(ports=(PortSettings(name="a", kind="memory"),)))
