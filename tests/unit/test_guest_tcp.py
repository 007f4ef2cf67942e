"""Templates with `tcp = true`: what is said of a manifest that cannot work, and of one that hardly will."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from edgeos import consistency, guest, guest_build
from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError, ManifestError
from edgeos.guest_tcp import SERVICES
from edgeos.kinds import Appliance
from edgeos.manifest import check_settings, find_warnings, load_manifest
from edgeos.match import parse_match
from edgeos.settings import ChainSettings, Grants, Manifest, PortSettings, RuleSettings, TemplateSettings

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFEST = """
[port.wan]
kind = "afxdp"
device = "eth0"
take = ["tcp dst port 7777"]

[template.echo]
source = "echo.c"
tcp = true
grant = { timer = true, random = true }

[chain.echo]
path = ["wan", "echo"]

[[rule]]
match = "tcp"
chain = "echo"
"""
BEHIND = """
[port.lan]
kind = "tap"
device = "lan0"

[template.fw]
appliance = "firewall"
"""
GRANT = "grant = { timer = true, random = true }"
TAKE = 'take = ["tcp dst port 7777"]\n'
RESETS = (
    "with afpacket the kernel sees the packets too, and resets connections to 192.0.2.1 of eth0 that chain echo"
    ' serves; use kind = "afxdp" with take, or let the system\'s firewall drop them'
)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {
        "lo": {ipaddress.ip_address("127.0.0.1")},
        "eth0": {ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("fe80::1")},
        "eth1": {ipaddress.ip_address("fe80::2")},
    }
    for name in ("echo.c", "echo.wasm", "echo.click"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(consistency, "device_addresses", lambda: addresses)
    monkeypatch.setattr(consistency.socket, "if_nameindex", lambda: [(1, "eth0"), (2, "eth1")])


def load(text: str) -> Manifest:
    Path("edge.toml").write_text(text, encoding="utf-8")
    return load_manifest("edge.toml")


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        load(text)
    return tuple(problem.removeprefix("edge.toml: ") for problem in caught.value.problems)


def warnings(text: str) -> list[str]:
    return [warning.removeprefix("edge.toml: ") for warning in find_warnings(load(text))]


def edited(*changes: tuple[str, str]) -> str:
    text = MANIFEST
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def test_the_setting_reaches_the_template() -> None:
    manifest = load(MANIFEST)
    assert manifest.templates[0].tcp
    assert find_warnings(manifest) == []
    check_settings(manifest)
    assert not TemplateSettings(name="echo").tcp


def test_every_appliance_that_serves_is_there() -> None:
    assert set(SERVICES) < set(Appliance.names())
    for name in SERVICES:
        load(edited(('source = "echo.c"', f'appliance = "{name}"')))


@pytest.mark.parametrize("tcp", [False, True])
def test_the_guest_is_built_with_it(tcp: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def build(*_: object, **options: object) -> bytes:
        asked.append(options["tcp"])
        raise GuestError("enough")

    monkeypatch.setattr(guest, "build", build)
    for template in (
        TemplateSettings(name="t", source=Path("echo.c")),
        TemplateSettings(name="t", appliance="memcached"),
    ):
        with pytest.raises(GuestError, match="enough"):
            guest.load_guest(replace(template, tcp=tcp), CodeCache(tmp_path))
    assert asked == [tcp, tcp]


@pytest.mark.parametrize(
    "source", [EXAMPLES / "echo.c", guest.appliance_source("memcached")], ids=lambda path: path.stem
)
def test_services_are_built_without_a_warning(source: Path) -> None:
    lines: list[str] = []
    assert guest_build.build(source, tcp=True, progress=lines.append)
    assert not [line for line in lines if "warning" in line]


def test_a_module_that_was_built_so_is_told_of_both_grants(tmp_path: Path) -> None:
    module = tmp_path / "echo.wasm"
    guest_build.build(EXAMPLES / "echo.c", module, tcp=True)
    settings = TemplateSettings(name="echo", module=module)
    with pytest.raises(GuestError, match=r"template\.echo: .*") as caught:
        guest.load_guest(settings, CodeCache(tmp_path))
    for name in ("timer", "random"):
        assert f"import edgeos.{name} needs grant.{name}: add grant = {{ {name} = true }}" in str(caught.value)
    assert guest.load_guest(replace(settings, grant=Grants(timer=True, random=True)), CodeCache(tmp_path))


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        (
            'module = "echo.wasm"',
            "true beside module; allowed: no tcp for a module, which is as it was built;"
            " build it with `edgeos build --tcp`",
        ),
        ('click = "echo.click"', "true beside click; allowed: no tcp for click: its elements handle packets"),
        (
            'appliance = "firewall"',
            'true for the appliance "firewall", which handles packets;'
            " allowed: tcp for source, or for the appliance memcached",
        ),
    ],
)
def test_what_cannot_be_built_with_tcp(origin: str, found: str) -> None:
    text = edited(('source = "echo.c"', origin))
    assert f"template.echo.tcp: found {found}" in problems(text)
    assert not any(".tcp: " in line for line in _said(text.replace("tcp = true", "tcp = false")))


def _said(text: str) -> tuple[str, ...]:
    try:
        load(text)
    except ManifestError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("grant", "found"),
    [
        (
            "",
            "no timer and no random with tcp = true; allowed: timer and random, which a guest's TCP calls;"
            " add grant = { timer = true, random = true }",
        ),
        (
            "grant = { timer = true }",
            "no random with tcp = true; allowed: timer and random, which a guest's TCP calls; add random = true to it",
        ),
        (
            "grant = { clock = true, random = true }",
            "no timer with tcp = true; allowed: timer and random, which a guest's TCP calls; add timer = true to it",
        ),
    ],
)
def test_grants_that_are_missing(grant: str, found: str) -> None:
    text = edited((GRANT, grant))
    assert problems(text) == (f"template.echo.grant: found {found}",)
    load(text.replace("tcp = true", "tcp = false"))


def test_no_upstreams() -> None:
    upstream = '\n[upstream.db]\naddress = "127.0.0.1:5432"\n'
    assert problems(edited(("random = true", 'random = true, connect = ["db"]')) + upstream) == (
        "template.echo.grant: found connect with tcp = true; allowed: no upstreams for a guest that speaks TCP itself",
    )


def test_a_grant_that_is_bad_makes_one_line() -> None:
    assert problems(edited(("random = true", "random = 1"))) == (
        "template.echo.grant.random: found 1; allowed: true or false",
    )
    assert problems(edited((GRANT, "grant = 1")))[0].startswith("template.echo.grant: found 1; allowed: a table")
    assert problems(edited(("tcp = true", 'tcp = "yes"'))) == (
        'template.echo.tcp: found "yes"; allowed: true or false',
    )


def test_no_listener_in_front_of_it() -> None:
    listener = ('kind = "afxdp"\ndevice = "eth0"\n' + TAKE, 'kind = "tcp"\nlisten = "127.0.0.1:7777"\n')
    assert problems(edited(listener)) == (
        'chain.echo.path: found the listener "wan" in front of "echo", which speaks TCP itself;'
        " allowed: ports for packets in front of it;"
        " take tcp = true out of template.echo, or start the chain at an afxdp port",
    )
    load(edited(listener, ("tcp = true\n", "")))


@pytest.mark.parametrize("behind", ["fw", "lan"])
def test_nothing_behind_it(behind: str) -> None:
    text = edited(('path = ["wan", "echo"]', f'path = ["wan", "echo", "{behind}"]')) + BEHIND
    assert problems(text) == (
        f'chain.echo.path: found "{behind}" behind "echo", which speaks TCP itself;'
        " allowed: such a stage at the end: its connections go no further",
    )


def test_packets_may_pass_other_stages_first() -> None:
    assert warnings(edited(('path = ["wan", "echo"]', 'path = ["wan", "fw", "echo"]')) + BEHIND) == [
        "port.lan: no chain uses it"
    ]


def test_all_is_said_at_once() -> None:
    text = edited((GRANT, ""), ('path = ["wan", "echo"]', 'path = ["wan", "echo", "lan"]')) + BEHIND
    assert [line.partition(": ")[0] for line in problems(text)] == ["template.echo.grant", "chain.echo.path"]


def test_settings_of_a_program_are_checked_alike() -> None:
    def node(**template: object) -> Manifest:
        return Manifest(
            ports=(PortSettings(name="wan", kind="memory"),),
            templates=(TemplateSettings(name="echo", source=Path("echo.c"), **template),),  # type: ignore[arg-type]
            chains=(ChainSettings(name="echo", path=("wan", "echo")),),
            rules=(RuleSettings(match=parse_match("any"), chain="echo"),),
        )

    check_settings(node(tcp=True, grant=Grants(timer=True, random=True)))
    for template, line in (({"tcp": True}, "template.echo.grant"), ({"tcp": 1}, "template.echo.tcp")):
        with pytest.raises(ManifestError) as caught:
            check_settings(node(**template))
        assert [problem.split(": ")[1] for problem in caught.value.problems] == [line]


# ---- Warnings ----


def afpacket(device: str = "eth0", match: str = "tcp") -> str:
    changed = edited(('kind = "afxdp"', 'kind = "afpacket"'), (TAKE, ""), ('"eth0"', f'"{device}"'))
    return changed.replace('match = "tcp"', f'match = "{match}"')


def test_the_kernel_resets_connections_that_come_by_a_packet_socket() -> None:
    assert warnings(afpacket()) == [f"port.wan.kind: {RESETS}"]
    fallback = edited((TAKE, 'fallback = "afpacket"\n'))
    assert warnings(fallback)[0] == f"port.wan.fallback: {RESETS}"


@pytest.mark.parametrize("match", ["any", "ip4", "tcp dst port 80", "dst 192.0.2.0/24", "from wan", "src 10.0.0.0/8"])
def test_rules_by_which_connections_to_the_systems_own_address_come(match: str) -> None:
    assert warnings(afpacket(match=match)) == [f"port.wan.kind: {RESETS}"]


@pytest.mark.parametrize("match", ["udp", "ip6", "dst 198.51.100.1", "arp", "non-ip"])
def test_rules_by_which_none_come(match: str) -> None:
    assert warnings(afpacket(match=match)) == []


def test_addresses_that_nobody_resets() -> None:
    assert warnings(afpacket("eth1")) == []
    assert warnings(afpacket().replace("tcp = true", "tcp = false")) == []


def test_a_port_that_takes_everything_takes_arp_too() -> None:
    assert warnings(edited((TAKE, ""))) == [
        "port.wan.take: without it ARP is taken too, and chain echo does not answer it;"
        ' name what is served, such as take = ["tcp dst port 80"]'
    ]


def test_somebody_else_may_answer_arp() -> None:
    another = '\n[chain.arp]\npath = ["wan", "fw", "lan"]\n\n[[rule]]\nmatch = "arp"\nchain = "arp"\n'
    passed = '\n[[rule]]\nmatch = "arp"\npass = ["wan", "lan"]\n'
    assert warnings(edited((TAKE, "")) + BEHIND + another) == []
    assert warnings(edited((TAKE, "")) + BEHIND + passed) == ["template.fw: no chain uses it"]
