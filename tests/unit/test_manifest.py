"""Manifests: what they mean, and that everything wrong with one is said with file, key, found, allowed and a hint."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeos import consistency
from edgeos.errors import ManifestError
from edgeos.kinds import Appliance
from edgeos.manifest import check_settings, find_warnings, load_manifest, missing_devices, parse_manifest
from edgeos.match import parse_match
from edgeos.schema import SECTIONS
from edgeos.settings import (
    ChainSettings,
    Manifest,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
)

MANIFEST = '''
[node]
workers = 1

[port.lan]
kind = "pcap"            # or "tap", "afpacket" with device = "veth0"
read = "in.pcap"

[port.wan]
kind = "pcap"
write = "out.pcap"

[template.fw]
appliance = "firewall"   # or source = "mine.c", or module = "mine.wasm"
config = """
allow udp dst 192.168.1.0/24 port 53
deny all
"""

[chain.edge]
path = ["lan", "fw", "wan"]
isolate = "client"
idle_timeout = "30s"
max_fwps = 10000

[[rule]]
match = "ip"
chain = "edge"
'''


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.pcap").write_bytes(b"")
    (tmp_path / "mine.c").write_text("")
    devices = tmp_path / "sys"
    devices.mkdir()
    for device in ("eth0", "veth0"):
        (devices / device).mkdir()
    monkeypatch.setattr(consistency.socket, "if_nameindex", lambda: [(1, entry.name) for entry in devices.iterdir()])
    monkeypatch.setattr(Appliance, "names", staticmethod(lambda: ["bridge", "firewall", "memcached", "monitor"]))
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Manifest:
    Path("edge.toml").write_text(text, encoding="utf-8")
    return load_manifest("edge.toml")


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        load(text)
    return caught.value.problems


def edited(old: str, new: str) -> str:
    assert MANIFEST.count(old) == 1
    return MANIFEST.replace(old, new)


def test_the_first_manifest() -> None:
    manifest = load(MANIFEST)
    folder = Path()
    assert manifest == Manifest(
        path=Path("edge.toml"),
        node=NodeSettings(workers=1, mover="inline", wait="adaptive", memory="auto", max_flows=65536),
        ports=(
            PortSettings(name="lan", kind="pcap", read=folder / "in.pcap"),
            PortSettings(name="wan", kind="pcap", write=folder / "out.pcap"),
        ),
        templates=(
            TemplateSettings(
                name="fw", appliance="firewall", config=b"allow udp dst 192.168.1.0/24 port 53\ndeny all\n"
            ),
        ),
        chains=(
            ChainSettings(
                name="edge",
                path=("lan", "fw", "wan"),
                isolate="client",
                idle_timeout_ns=30_000_000_000,
                max_fwps=10_000,
            ),
        ),
        rules=(RuleSettings(match=parse_match("ip"), chain="edge"),),
    )
    assert find_warnings(manifest) == []
    check_settings(manifest)


def test_paths_are_relative_to_the_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("edge.toml").write_text(MANIFEST)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert load_manifest(tmp_path / "edge.toml").ports[0].read == tmp_path / "in.pcap"


def test_units_and_files() -> None:
    Path("rules.txt").write_bytes(b"deny all\n")
    manifest = load(
        MANIFEST.replace(
            'config = """\nallow udp dst 192.168.1.0/24 port 53\ndeny all\n"""',
            'config_file = "rules.txt"\nmemory = "2MiB"\nbudget = "5ms"\nstack = 32768\nslot_size = "4KiB"',
        )
    )
    template = manifest.templates[0]
    assert template.config == b"deny all\n"
    assert (template.memory, template.budget_ns, template.stack, template.slot_size) == (2097152, 5000000, 32768, 4096)


# Each row: what is replaced in the manifest, by what, and the whole line that must come of it.
ROWS = [
    (
        'isolate = "client"',
        'isolate = "clinet"',
        'edge.toml: chain.edge.isolate: found "clinet"; allowed: shared, client, connection, flow;'
        ' did you mean "client"?',
    ),
    (
        "[node]",
        "[nod]",
        'edge.toml: nod: found "nod"; allowed: node, port, upstream, template, chain, tenant, rule, unmatched; '
        'did you mean "node"?',
    ),
    (
        "workers = 1",
        "workres = 1",
        'edge.toml: node.workres: found "workres"; allowed: workers, mover, wait, memory, max_flows,'
        ' spare_fwps, spare_memory, drain_timeout, orphan_timeout; did you mean "workers"?',
    ),
    ("workers = 1", "workers = 65", 'edge.toml: node.workers: found 65; allowed: "auto", or 1 to 64'),
    ("workers = 1", "max_flows = true", "edge.toml: node.max_flows: found true; allowed: 16 to 16777216"),
    ("workers = 1", 'mover = "both"', 'edge.toml: node.mover: found "both"; allowed: inline, dedicated'),
    ("workers = 1", "wait = 3", "edge.toml: node.wait: found 3; allowed: adaptive, spin, block"),
    (
        'kind = "pcap"            #',
        'kind = "pacp"            #',
        'edge.toml: port.lan.kind: found "pacp"; allowed: pcap, tap, afpacket, afxdp, tcp, udp, unix;'
        ' did you mean "pcap"?',
    ),
    (
        'kind = "pcap"            #',
        'kind = "memory"          #',
        'edge.toml: port.lan.kind: found "memory"; allowed: pcap, tap, afpacket, afxdp, tcp, udp, unix',
    ),
    (
        'kind = "pcap"            #',
        "#",
        "edge.toml: port.lan.kind: found nothing; allowed: pcap, tap, afpacket, afxdp, tcp, udp, unix;"
        " the key is required",
    ),
    (
        'read = "in.pcap"',
        'read = "im.pcap"',
        'edge.toml: port.lan.read: found "im.pcap", which does not exist; allowed: a file that can be read;'
        ' did you mean "in.pcap"?',
    ),
    (
        'read = "in.pcap"',
        'read = "sys"',
        'edge.toml: port.lan.read: found "sys", a folder; allowed: a file that can be read',
    ),
    ('read = "in.pcap"', "read = 7", "edge.toml: port.lan.read: found 7; allowed: a file that can be read"),
    (
        'read = "in.pcap"',
        'read = "a\\u0000b"',
        'edge.toml: port.lan.read: found "a\\x00b"; allowed: a path of at most 4095 bytes, without NUL',
    ),
    (
        'read = "in.pcap"',
        "",
        "edge.toml: port.lan.read: found neither read nor write; allowed: read, write or both, for kind pcap",
    ),
    (
        'read = "in.pcap"',
        'read = "in.pcap"\nwrite = "in.pcap"',
        'edge.toml: port.lan.write: found "in.pcap", which port.lan.read uses; allowed: a file of its own',
    ),
    (
        'write = "out.pcap"',
        'write = "sys/../in.pcap"',
        'edge.toml: port.wan.write: found "sys/../in.pcap", which port.lan.read uses; allowed: a file of its own',
    ),
    (
        'write = "out.pcap"',
        'write = "no/out.pcap"',
        'edge.toml: port.wan.write: found "no/out.pcap", whose folder does not exist;'
        " allowed: a file in a folder that can be written to",
    ),
    (
        'write = "out.pcap"',
        'write = "sys"',
        'edge.toml: port.wan.write: found "sys", a folder; allowed: a file in a folder that can be written to',
    ),
    (
        'write = "out.pcap"',
        'write = "out.pcap"\ndevice = "eth0"',
        'edge.toml: port.wan.device: found "eth0"; allowed: no device for kind pcap, only for tap, afpacket and afxdp',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "tap"',
        "edge.toml: port.wan.device: found nothing; allowed: the name of a network device, for kind tap;"
        ' add device = "…"',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "tap"\ndevice = "a name/16 chars"',
        'edge.toml: port.wan.device: found "a name/16 chars"; allowed: 1 to 15 characters without space, / and :',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "tap"\ndevice = "t"\nwrite = "out.pcap"',
        'edge.toml: port.wan.write: found "out.pcap"; allowed: no write for kind tap, only for pcap',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afpacket"\ndevice = "vet0"',
        'edge.toml: port.wan.device: found "vet0", which does not exist; allowed: eth0, veth0; did you mean "veth0"?',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afxdp"\ndevice = "vet0"',
        'edge.toml: port.wan.device: found "vet0", which does not exist; allowed: eth0, veth0; did you mean "veth0"?',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afxdp"\ndevice = "veth0"\nqueues = "al"',
        'edge.toml: port.wan.queues: found "al"; allowed: "all", or the number of a queue: 0 to 1023',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afxdp"\ndevice = "veth0"\ntake = ["udp port 53", "from lan"]',
        'edge.toml: port.wan.take: found "from lan"; allowed: no from: the packets are those of this port',
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afxdp"\ndevice = "veth0"\ntake = []',
        'edge.toml: port.wan.take: found a list of 0; allowed: a match such as "udp dst port 53",'
        " or a list of up to 32",
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afxdp"\ndevice = "veth0"\ntake = "ip"\nfallback = "afpacket"',
        'edge.toml: port.wan.fallback: found "afpacket"; allowed: only "none" with take:'
        " a packet socket cannot leave the rest alone",
    ),
    (
        'kind = "pcap"\nwrite = "out.pcap"',
        'kind = "afpacket"\ndevice = "veth0"\nqueues = 0',
        "edge.toml: port.wan.queues: found 0; allowed: no queues for kind afpacket, only for afxdp",
    ),
    (
        '[template.fw]\nappliance = "firewall"',
        '[template.fw]\nappliance = "firewal"',
        'edge.toml: template.fw.appliance: found "firewal"; allowed: bridge, firewall, memcached, monitor;'
        ' did you mean "firewall"?',
    ),
    (
        'appliance = "firewall"',
        "",
        "edge.toml: template.fw.appliance: found nothing; allowed: exactly one of appliance, source, module, click",
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nsource = "mine.c"',
        "edge.toml: template.fw.appliance or source: found appliance and source;"
        " allowed: exactly one of appliance, source, module, click",
    ),
    (
        'appliance = "firewall"',
        'module = "mine.wasm"',
        'edge.toml: template.fw.module: found "mine.wasm", which does not exist; allowed: a file that can be read;'
        ' did you mean "mine.c"?',
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nconfig_file = "in.pcap"',
        "edge.toml: template.fw.config_file: found config_file beside config; allowed: one of the two",
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nmemory = "100KiB"',
        'edge.toml: template.fw.memory: found "100KiB"; allowed: 64KiB to 1GiB, a multiple of 64KiB',
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nmemory = "1 Mb"',
        'edge.toml: template.fw.memory: found "1 Mb"; allowed: bytes, or a number and a unit of B, KiB, MiB, GiB, kB,'
        ' MB, GB, such as "64KiB"; did you mean "MB"?',
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nmemory = "64KiB"\nslots = 64',
        'edge.toml: template.fw.memory: found "64KiB" for 138112B of slots and stack;'
        " allowed: at least slots * (slot_size + 64) + stack",
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nbudget = "11s"',
        'edge.toml: template.fw.budget: found "11s"; allowed: 1ms to 10s',
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nslots = 48',
        "edge.toml: template.fw.slots: found 48; allowed: 8 to 256, a power of two",
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nslot_size = 100',
        "edge.toml: template.fw.slot_size: found 100; allowed: 64B to 64KiB, a multiple of 64B",
    ),
    (
        'appliance = "firewall"',
        'appliance = "firewall"\nready_low = 65',
        "edge.toml: template.fw.ready_low: found 65; allowed: at most ready_high, 64",
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'path = "lan"',
        'edge.toml: chain.edge.path: found "lan"; allowed: a list of 1 to 256 names of ports and templates',
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'path = ["lan", 3]',
        "edge.toml: chain.edge.path: found 3 in the list; allowed: a list of 1 to 256 names of ports and templates",
    ),
    (
        'path = ["lan", "fw", "wan"]',
        "",
        "edge.toml: chain.edge.path: found neither path nor links; allowed: one of the two, such as"
        ' path = ["lan", "fw", "wan"]',
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'path = ["lan", "fw", "wan"]\nlinks = ["lan -> fw"]',
        "edge.toml: chain.edge.path: found path and links; allowed: one of the two",
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'path = ["lan", "wf", "wan"]',
        'edge.toml: chain.edge.path: found "wf"; allowed: lan, wan, fw; did you mean "fw"?',
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'links = ["lan -> fw", "fw -> fw", "fw[1] -> wan"]',
        "edge.toml: chain.edge.links: found a loop: fw -> fw; allowed: stages that lead onward only",
    ),
    (
        'path = ["lan", "fw", "wan"]',
        'path = ["lan", "fw", "lan"]',
        'edge.toml: chain.edge.path: found the port "lan" twice; allowed: two different ports; use "links"',
    ),
    (
        'idle_timeout = "30s"',
        "idle_timeout = 30",
        "edge.toml: chain.edge.idle_timeout: found 30; allowed: a number and a unit of ns, us, ms, s, min, h, d,"
        ' such as "30s"',
    ),
    (
        'idle_timeout = "30s"',
        'idle_timeout = "2d"',
        'edge.toml: chain.edge.idle_timeout: found "2d"; allowed: 1ms to 1d',
    ),
    (
        "max_fwps = 10000",
        'keep = "yes"',
        'edge.toml: chain.edge.keep: found "yes"; allowed: true or false',
    ),
    (
        "max_fwps = 10000",
        'keep = true\nkeep_memory = "1KiB"',
        'edge.toml: chain.edge.keep_memory: found "1KiB"; allowed: 64KiB to 1024GiB',
    ),
    (
        "max_fwps = 10000",
        'keep_timeout = "1h"',
        'edge.toml: chain.edge.keep_timeout: found "1h"; allowed: no keep_timeout without keep = true',
    ),
    (
        'isolate = "client"',
        'isolate = "shared"\nkeep = true',
        'edge.toml: chain.edge.keep: found true with isolate = "shared"; allowed: client or flow: nobody leaves an FWP'
        " that all share",
    ),
    (
        'chain = "edge"',
        'chain = "edge"\nisolate = "shared"\n[chain.other]\npath = ["lan", "fw", "wan"]\nkeep = true\n'
        '[[rule]]\nmatch = "ip"\nchain = "other"\nisolate = "shared"',
        'edge.toml: rule #2.isolate: found "shared" for chain other, which has keep = true; allowed: client or flow:'
        " nobody leaves an FWP that all share",
    ),
    ("max_fwps = 10000", "max_fwps = 0", "edge.toml: chain.edge.max_fwps: found 0; allowed: 1 to 1000000"),
    ("max_fwps = 10000", "max_fwps = 1.5", "edge.toml: chain.edge.max_fwps: found 1.5; allowed: 1 to 1000000"),
    (
        "max_fwps = 10000",
        'when_full = "evcit"',
        'edge.toml: chain.edge.when_full: found "evcit"; allowed: refuse, evict; did you mean "evict"?',
    ),
    (
        "max_fwps = 10000",
        'on_kill = "ignore"',
        'edge.toml: chain.edge.on_kill: found "ignore"; allowed: restart, block',
    ),
    (
        'match = "ip"',
        "",
        'edge.toml: rule #1.match: found nothing; allowed: a match such as "ip" or "udp dst port 53";'
        " the key is required",
    ),
    (
        'match = "ip"',
        'match = "tcp arp"',
        'edge.toml: rule #1.match: found "arp" at column 5 after "tcp" at column 1;'
        " allowed: terms that can all hold for one flow",
    ),
    (
        'match = "ip"',
        'match = "from lna"',
        'edge.toml: rule #1.match: found "lna"; allowed: lan, wan; did you mean "lan"?',
    ),
    (
        'match = "ip"',
        'match = "from dmz"\ndrop = true\n[port.dmz]\nkind = "tap"\ndevice = "t"\n[[rule]]\nmatch = "from dmz"',
        'edge.toml: rule #2.match: found "from dmz" for chain edge; allowed: its ports: lan, wan',
    ),
    (
        'chain = "edge"\n',
        'chain = "egde"\n',
        'edge.toml: rule #1.chain: found "egde"; allowed: edge; did you mean "edge"?',
    ),
    (
        'chain = "edge"\n',
        "",
        'edge.toml: rule #1.chain: found no action; allowed: chain = "NAME", drop = true or pass = ["lan", "wan"]',
    ),
    (
        'chain = "edge"\n',
        'chain = "edge"\ndrop = true\n',
        "edge.toml: rule #1.drop: found chain and drop; allowed: one of them",
    ),
    (
        'chain = "edge"\n',
        'pass = ["lan"]\n',
        "edge.toml: rule #1.pass: found 1 names; allowed: two different ports, the clients' side first",
    ),
    (
        'chain = "edge"\n',
        'pass = ["lan", "wann"]\n',
        'edge.toml: rule #1.pass: found "wann"; allowed: lan, wan; did you mean "wan"?',
    ),
    (
        'chain = "edge"\n',
        "drop = true\nmax_clients = 3\n",
        "edge.toml: rule #1.max_clients: found 3; allowed: no max_clients without chain",
    ),
    (
        'chain = "edge"\n',
        'chain = "edge"\nisolate = "connection"\n',
        'edge.toml: rule #1.isolate: found "connection" for a chain of ports for packets;'
        " allowed: shared, client, flow",
    ),
    ('chain = "edge"\n', 'drop = "yes"\n', 'edge.toml: rule #1.drop: found "yes"; allowed: true or false'),
]


@pytest.mark.parametrize(("old", "new", "line"), ROWS, ids=[row[2][:60] for row in ROWS])
def test_one_mistake_makes_one_line(old: str, new: str, line: str) -> None:
    assert problems(edited(old, new)) == (line,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 3", "edge.toml: port: found 3; allowed: tables, [port.NAME]"),
        ("node = 3", "edge.toml: node: found 3; allowed: a table"),
        ("rule = 3", "edge.toml: rule: found 3; allowed: a list of tables, each [[rule]]"),
        ("rule = [3]", "edge.toml: rule #1: found 3; allowed: a table"),
        ("chain.edge = []", "edge.toml: chain.edge: found a list of 0; allowed: a table, [chain.NAME]"),
        (
            '[port."la n"]\nkind = "tap"\ndevice = "t"',
            'edge.toml: port."la n": found "la n"; allowed: 1 to 32 letters, digits, - and _',
        ),
        (
            f'[port.{"x" * 33}]\nkind = "tap"\ndevice = "t"',
            f'edge.toml: port.{"x" * 33}: found "{"x" * 33}"; allowed: 1 to 32 letters, digits, - and _',
        ),
        (
            '[port.fw]\nkind = "tap"\ndevice = "t"\n[template.fw]\nappliance = "bridge"',
            "edge.toml: template.fw: found the name of a port; allowed: a name that no port and no template has",
        ),
        (
            '[port.a]\nkind = "tap"\ndevice = "t"\n[port.b]\nkind = "tap"\ndevice = "t"',
            'edge.toml: port.b.device: found "t", which port.a.device uses; allowed: a device of its own',
        ),
        (
            "[chain.c]\npath = ['p', 't']",
            'edge.toml: chain.c.path: found "p"; allowed: a port or template, but there is none',
        ),
    ],
)
def test_odd_tables(text: str, line: str) -> None:
    assert line in problems(text)


def test_everything_at_once_and_rule_numbers() -> None:
    found = problems(
        MANIFEST.replace('isolate = "client"', 'isolate = "all"')
        .replace("max_fwps = 10000", "max_fwps = -1")
        .replace('read = "in.pcap"', 'read = "gone"')
        + '[[rule]]\nmatch = "nonsense"\nchain = "edge"\n[[rule]]\nmatch = "any"\nchain = "edgy"\n'
    )
    keys = [line.split(": ")[1] for line in found]
    assert keys == [
        "port.lan.read",
        "chain.edge.isolate",
        "chain.edge.max_fwps",
        "rule #2.match",
        "rule #3.chain",
    ]


def test_an_unreadable_configuration_file() -> None:
    line = problems('[template.fw]\nappliance = "bridge"\nconfig_file = "none.txt"')[0]
    assert line.startswith('edge.toml: template.fw.config_file: found "none.txt", which does not exist; allowed: ')


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission() -> None:
    Path("in.pcap").chmod(0)
    assert problems(MANIFEST)[0].startswith('edge.toml: port.lan.read: found "in.pcap", which may not be read')


def test_two_names_of_one_file() -> None:
    Path("same.pcap").hardlink_to("in.pcap")
    assert 'found "same.pcap", which port.lan.read uses' in problems(edited('"out.pcap"', '"same.pcap"'))[0]


def test_many_ports_may_write_nowhere() -> None:
    assert load(
        edited('read = "in.pcap"', 'read = "in.pcap"\nwrite = "/dev/null"').replace('"out.pcap"', '"/dev/null"')
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[node\n", "edge.toml: line 1, column 6: "),
        (b"[node]\nworkers = 1\nworkers = 1\n", "edge.toml: line 3, column 12: "),
        (b"a = \xff", "edge.toml: found byte 0xff at offset 4; allowed: UTF-8 text"),
        (b"a = " + b"[" * 100_000, "edge.toml: found brackets nested too deep; allowed: a manifest in TOML"),
        (b"a = " + b"9" * 10_000, "edge.toml: TOML: "),
    ],
)
def test_what_is_no_toml(content: bytes, line: str) -> None:
    Path("edge.toml").write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        load_manifest("edge.toml")
    assert caught.value.problems[0].startswith(line)
    assert len(caught.value.problems) == 1


def test_a_number_too_long_to_print() -> None:
    line = problems(edited("workers = 1", f"max_flows = 0x{'f' * 5000}"))
    assert line == ("edge.toml: node.max_flows: found a number of 20000 bits; allowed: 16 to 16777216",)


def test_byte_order_mark_is_no_mistake() -> None:
    Path("edge.toml").write_bytes(b"\xef\xbb\xbf" + MANIFEST.encode())
    assert load_manifest("edge.toml").node.workers == 1


@pytest.mark.parametrize(("path", "line"), [("no.toml", "no.toml: found no such file"), ("sys", "sys: cannot be read")])
def test_what_is_no_file(path: str, line: str) -> None:
    with pytest.raises(ManifestError, match=line):
        load_manifest(path)


def test_devices_are_looked_up_again(tmp_path: Path) -> None:
    manifest = load(edited('kind = "pcap"\nwrite = "out.pcap"', 'kind = "afpacket"\ndevice = "veth0"'))
    assert missing_devices(manifest) == []
    (tmp_path / "sys" / "veth0").rmdir()
    assert missing_devices(manifest)[0].startswith('edge.toml: port.wan.device: found "veth0", which does not exist')


def test_without_packet_ports_devices_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency.socket, "if_nameindex", lambda: pytest.fail("a service may be without AF_NETLINK"))
    load(MANIFEST)


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ('[port.dmz]\nkind = "tap"\ndevice = "t"', "edge.toml: port.dmz: no chain uses it"),
        ('[template.mon]\nappliance = "monitor"', "edge.toml: template.mon: no chain uses it"),
        ('[chain.two]\npath = ["lan", "fw"]', "edge.toml: chain.two: no rule uses it"),
        (
            '[[rule]]\nmatch = "tcp"\ndrop = true',
            'edge.toml: rule #2: never matches, because rule #1, "ip", comes first',
        ),
    ],
)
def test_warnings(more: str, warning: str) -> None:
    assert find_warnings(load(f"{MANIFEST}\n{more}\n")) == [warning]


def test_warning_of_no_rule() -> None:
    text = MANIFEST[: MANIFEST.index("[[rule]]")]
    assert find_warnings(load(text)) == [
        "edge.toml: chain.edge: no rule uses it",
        "edge.toml: rule: there is none, so every message is dropped",
    ]


def test_warning_of_a_file_that_cannot_be_written() -> None:
    Path("second.pcap").touch()
    assert find_warnings(load(edited('write = "out.pcap"', 'read = "second.pcap"'))) == [
        "edge.toml: port.wan: chain edge sends to it, but it has no write file: those messages are dropped",
        "edge.toml: port.lan: chain edge sends to it, but it has no write file: those messages are dropped",
    ]


def memory_node(**changes: Any) -> Manifest:
    manifest = Manifest(
        ports=(PortSettings(name="a", kind="memory"), PortSettings(name="b", kind="memory")),
        templates=(TemplateSettings(name="t", appliance="bridge"),),
        chains=(ChainSettings(name="c", path=("a", "t", "b")),),
        rules=(RuleSettings(match=parse_match("any"), chain="c"),),
    )
    return replace(manifest, **changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"node": NodeSettings(workers=-1)}, 'settings: node.workers: found -1; allowed: "auto", or 1 to 64'),
        (
            {"chains": (ChainSettings(name="c", path=("a", "t", "b"), idle_timeout_ns=1),)},
            "settings: chain.c.idle_timeout: found 1ns; allowed: 1ms to 1d",
        ),
        (
            {"chains": (ChainSettings(name="c", path=("a", "x", "b")),)},
            'settings: chain.c.path: found "x"; allowed: a, b, t',
        ),
        (
            {"templates": (TemplateSettings(name="t", appliance="bridge", config="x"),)},  # type: ignore[arg-type]
            'settings: template.t.config: found "x"; allowed: bytes',
        ),
        (
            {"templates": (TemplateSettings(name="t", source=Path("gone.c")),)},
            'settings: template.t.source: found "gone.c", which does not exist',
        ),
        (
            {
                "ports": (
                    PortSettings(name="a", kind="memory"),
                    PortSettings(name="b", kind="pcap", write=Path("\ud800")),
                )
            },
            'settings: port.b.write: found "\\ud800"; allowed: a path in Unicode',
        ),
        (
            {"templates": (TemplateSettings(name="t", appliance="bridge"),) * 2},
            "settings: template.t: found 2 of this name; allowed: one",
        ),
        (
            {"ports": (PortSettings(name="a", kind="memory"), PortSettings(name="b", kind="memory", device="eth0"))},
            'settings: port.b.device: found "eth0"; allowed: no device for kind memory',
        ),
        (
            {"rules": (RuleSettings(match=parse_match("any")),)},
            "settings: rule #1.chain: found no action; allowed: ",
        ),
        (
            {"rules": (RuleSettings(match="any", chain="c"),)},  # type: ignore[arg-type]
            'settings: rule #1.match: found "any"; allowed: what parse_match returns',
        ),
    ],
)
def test_settings_of_a_program_are_checked_alike(changes: dict[str, Any], line: str) -> None:
    check_settings(memory_node())
    with pytest.raises(ManifestError) as caught:
        check_settings(memory_node(**changes))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(line)


def test_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sys" / "veth1").mkdir()
    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
    assert {"first-steps", "tap", "afpacket"} <= {example.stem for example in examples}
    for example in examples:
        assert find_warnings(load_manifest(example)) == []


KEYS = st.sampled_from([key for section in SECTIONS.values() for key in section.keys] + [*SECTIONS, "x", "é\n", ""])
VALUES = st.recursive(
    st.one_of(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.just("\ud800"),
        st.sampled_from(["pcap", "tap", "t", "lan", "fw", "c", "lan -> fw", "fw[1] -> lan", "ip", "10ms", "64KiB"]),
        st.sampled_from(["in.pcap", "firewall", "mine.c", "a/b", "\0", "x" * 5000, 1 << 10000]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def tables_of(section: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from([*SECTIONS[section].keys, "x"])
    return st.dictionaries(keys, VALUES, max_size=6)


NAMES = st.sampled_from(["lan", "wan", "fw", "c", "", "la n", "\ud800"])
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "node": tables_of("node") | VALUES,
        **{name: st.dictionaries(NAMES, tables_of(name) | VALUES) for name in ("port", "template", "chain")},
        "rule": st.lists(tables_of("rule") | VALUES, max_size=4) | VALUES,
    },
)


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """The first manifest with a few keys set to anything."""
    data = tomllib.loads(MANIFEST)
    places = [
        *((data["node"], "node"), (data["port"]["lan"], "port"), (data["port"]["wan"], "port")),
        *((data["template"]["fw"], "template"), (data["chain"]["edge"], "chain"), (data["rule"][0], "rule")),
    ]
    for _ in range(draw(st.integers(0, 3))):
        table, section = draw(st.sampled_from(places))
        table[draw(st.sampled_from(SECTIONS[section].keys))] = draw(VALUES)
    return data


@given(nearly_right() | SHAPED | st.dictionaries(KEYS, VALUES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_whatever_the_tables_hold(data: dict[str, Any]) -> None:
    """Any tables become a manifest that passes its own checks, or printable findings; nothing else is raised."""
    problems: tuple[str, ...] = ()
    try:
        manifest = parse_manifest(data, Path("edge.toml"))
    except ManifestError as error:
        problems = error.problems
    else:
        check_settings(manifest)
        find_warnings(manifest)
    for problem in problems:
        assert problem.isprintable()
        assert problem.startswith("edge.toml: ")
