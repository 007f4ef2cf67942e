"""Manifests with listeners, upstreams and grants: what they mean, and each mistake with its one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeos.errors import ManifestError
from edgeos.manifest import check_settings, find_warnings, load_manifest
from edgeos.settings import (
    ChainSettings,
    Grants,
    Manifest,
    PortSettings,
    TemplateSettings,
    UpstreamSettings,
)

MANIFEST = """
[port.web]
kind = "tcp"
listen = "127.0.0.1:8080"

[port.local]
kind = "unix"
listen = "./app.sock"
mode = "0600"

[upstream.db]
address = "[::1]:5432"

[upstream.cache]
address = "/run/cache.sock"

[template.app]
source = "app.c"
grant = { connect = ["cache", "db"], timer = true }

[chain.clients]
path = ["web", "app"]
isolate = "connection"

[chain.locals]
links = ["local -> app"]
isolate = "client"

[[rule]]
match = "from web"
chain = "clients"

[[rule]]
match = "any"
chain = "locals"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.c").write_text("")
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Manifest:
    Path("edge.toml").write_text(text, encoding="utf-8")
    return load_manifest("edge.toml")


def test_a_manifest_of_listeners() -> None:
    manifest = load(MANIFEST)
    assert manifest.ports == (
        PortSettings(name="web", kind="tcp", listen="127.0.0.1:8080"),
        PortSettings(name="local", kind="unix", listen="./app.sock", mode=0o600),
    )
    assert manifest.upstreams == (
        UpstreamSettings(name="db", address="[::1]:5432"),
        UpstreamSettings(name="cache", address="/run/cache.sock"),
    )
    assert manifest.templates == (
        TemplateSettings(name="app", source=Path("app.c"), grant=Grants(connect=("cache", "db"), timer=True)),
    )
    assert manifest.templates[0].grant.calls == ("connect", "timer")
    assert find_warnings(manifest) == []
    check_settings(manifest)


def test_every_listener_key() -> None:
    keys = """max_connections = 5
max_per_client = 2
client_prefix_v6 = 56
accept_rate = 100
open_timeout = "0"
idle_timeout = "90s"
backlog = 64
proxy_protocol = true
output_limit = "64KiB"
"""
    manifest = load(MANIFEST.replace('listen = "127.0.0.1:8080"\n', 'listen = "127.0.0.1:8080"\n' + keys))
    assert manifest.ports[0] == PortSettings(
        name="web",
        kind="tcp",
        listen="127.0.0.1:8080",
        max_connections=5,
        max_per_client=2,
        client_prefix_v6=56,
        accept_rate=100,
        open_timeout_ns=0,
        idle_timeout_ns=90_000_000_000,
        backlog=64,
        proxy_protocol=True,
        output_limit=65536,
    )


def test_socket_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(MANIFEST)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert load_manifest(tmp_path / "edge.toml").ports[1].listen == str(tmp_path / "app.sock")


IP = 'an IP address and a port, such as "127.0.0.1:8080" or "[::1]:8080"'
PATH = 'a path with a /, of at most 107 bytes, such as "/run/app.sock"'

# Each row: what is replaced in the manifest, by what, and the line that must come of it.
ROWS = [
    (
        '"127.0.0.1:8080"',
        '"127.0.0.1"',
        f'port.web.listen: found "127.0.0.1"; allowed: {IP}; add a port: "127.0.0.1:80"',
    ),
    ('"127.0.0.1:8080"', '"::1"', f'port.web.listen: found "::1"; allowed: {IP}; add a port: "[::1]:80"'),
    ('"127.0.0.1:8080"', '"8080"', f'port.web.listen: found "8080"; allowed: {IP}; did you mean "0.0.0.0:8080"?'),
    ('"127.0.0.1:8080"', '":8080"', f'port.web.listen: found ":8080"; allowed: {IP}; did you mean "0.0.0.0:8080"?'),
    (
        '"127.0.0.1:8080"',
        '"localhost:80"',
        f'port.web.listen: found "localhost:80"; allowed: {IP}; did you mean "127.0.0.1:80"?',
    ),
    (
        '"127.0.0.1:8080"',
        '"example.org:80"',
        f'port.web.listen: found "example.org:80"; allowed: {IP}; names are not looked up',
    ),
    ('"127.0.0.1:8080"', '"1.2.3.4:0"', 'port.web.listen: found "1.2.3.4:0"; allowed: a port from 1 to 65535'),
    ('"127.0.0.1:8080"', '"1.2.3.4:65536"', 'port.web.listen: found "1.2.3.4:65536"; allowed: a port from 1 to 65535'),
    (
        '"127.0.0.1:8080"',
        '"[fe80::1%eth0]:80"',
        'port.web.listen: found "[fe80::1%eth0]:80"; allowed: an address without a zone',
    ),
    ('"127.0.0.1:8080"', "8080", f"port.web.listen: found 8080; allowed: {IP}; or {PATH}"),
    ('"127.0.0.1:8080"', '"/run/x.sock"', f'port.web.listen: found "/run/x.sock"; allowed: {IP}, for kind tcp'),
    ('"./app.sock"', '"127.0.0.1:81"', f'port.local.listen: found "127.0.0.1:81"; allowed: {PATH}, for kind unix'),
    ('"./app.sock"', f'"/{"x" * 107}"', f'port.local.listen: found "/{"x" * 59}…"; allowed: {PATH}'),
    ('"./app.sock"', '"/run/"', f'port.local.listen: found "/run/"; allowed: {PATH}'),
    (
        'listen = "127.0.0.1:8080"',
        "",
        f'port.web.listen: found nothing; allowed: {IP}, for kind tcp; add listen = "…"',
    ),
    (
        "[upstream.db]",
        '[port.tap]\nkind = "tap"\ndevice = "t"\nlisten = "127.0.0.1:81"\n[upstream.db]',
        'port.tap.listen: found "127.0.0.1:81"; allowed: no listen for kind tap, only for tcp, udp and unix',
    ),
    (
        'listen = "127.0.0.1:8080"',
        'listen = "127.0.0.1:8080"\ndevice = "eth0"',
        'port.web.device: found "eth0"; allowed: no device for kind tcp, only for tap, afpacket and afxdp',
    ),
    (
        'listen = "127.0.0.1:8080"',
        'listen = "127.0.0.1:8080"\nmode = "0600"',
        'port.web.mode: found "0600"; allowed: no mode for kind tcp, only for unix',
    ),
    ('mode = "0600"', "mode = 600", 'port.local.mode: found 600; allowed: permissions in octal, "0000" to "0777"'),
    ('mode = "0600"', 'mode = "rw"', 'port.local.mode: found "rw"; allowed: permissions in octal, "0000" to "0777"'),
    (
        'mode = "0600"',
        "max_per_client = 3",
        "port.local.max_per_client: found 3; allowed: no max_per_client for kind unix, only for tcp and udp",
    ),
    (
        'kind = "tcp"',
        'kind = "udp"\nopen_timeout = "5s"',
        'port.web.open_timeout: found "5s"; allowed: no open_timeout for kind udp, only for tcp and unix',
    ),
    (
        'kind = "tcp"',
        'kind = "tcp"\nopen_timeout = "2d"',
        'port.web.open_timeout: found "2d"; allowed: 1ms to 1d, or "0" for none',
    ),
    (
        'kind = "tcp"',
        'kind = "tcp"\nmax_conections = 5',
        'port.web.max_conections: found "max_conections"; allowed: kind, read, write, device, queues, take, fallback,'
        " listen, mode, max_connections, max_per_client, client_prefix_v6, accept_rate, open_timeout, idle_timeout,"
        ' backlog, proxy_protocol, output_limit; did you mean "max_connections"?',
    ),
    (
        "[upstream.db]",
        '[port.two]\nkind = "tcp"\nlisten = "127.0.0.1:8080"\n[upstream.db]',
        'port.two.listen: found "127.0.0.1:8080", which port.web.listen uses; allowed: an address of its own',
    ),
    (
        'address = "[::1]:5432"',
        "",
        f"upstream.db.address: found nothing; allowed: {IP}; or {PATH}; the key is required",
    ),
    (
        'connect = ["cache", "db"]',
        'connect = ["cahce", "db"]',
        'template.app.grant.connect: found "cahce"; allowed: db, cache; did you mean "cache"?',
    ),
    (
        'connect = ["cache", "db"]',
        'connect = ["cache", "db", "db"]',
        "template.app.grant.connect: found an upstream twice; allowed: each upstream once",
    ),
    (
        "timer = true",
        "timr = true",
        'template.app.grant.timr: found "timr"; allowed: connect, timer, clock, random; did you mean "timer"?',
    ),
    ("timer = true", "timer = 1", "template.app.grant.timer: found 1; allowed: true or false"),
    (
        'grant = { connect = ["cache", "db"], timer = true }',
        'grant = ["timer"]',
        "template.app.grant: found a list of 1; allowed: a table with connect, timer, clock, random",
    ),
    (
        'path = ["web", "app"]\nisolate = "connection"',
        'path = ["web", "app", "lan"]\n[port.lan]\nkind = "tap"\ndevice = "t"',
        'chain.clients.path: found the listener "web" beside "lan", a port for packets; allowed: listeners only, or'
        " ports for packets only",
    ),
    (
        'path = ["web", "app"]',
        'links = ["web -> app -> local"]',
        'chain.clients.links: found the listener "local" at the far end; allowed: listeners at the front only, and'
        " templates behind them",
    ),
    (
        '[[rule]]\nmatch = "any"',
        '[port.lan]\nkind = "tap"\ndevice = "t"\n[chain.wire]\npath = ["lan", "app"]\nisolate = "connection"\n'
        '[[rule]]\nmatch = "any"',
        'chain.wire.isolate: found "connection" with "lan", a port for packets; allowed: shared, client, flow;'
        ' did you mean "flow"?',
    ),
    (
        'isolate = "connection"',
        'isolate = "connection"\nkeep = true',
        'chain.clients.keep: found true with isolate = "connection"; allowed: client or flow: a connection does'
        " not come back",
    ),
    (
        'isolate = "connection"',
        'isolate = "flow"\nkeep = true',
        'chain.clients.keep: found true with isolate = "flow" behind the listener "web"; allowed: client: a connection'
        " does not come back",
    ),
    (
        'isolate = "client"',
        'keep = true\n[[rule]]\nmatch = "from local"\nchain = "locals"\nisolate = "connection"',
        'rule #1.isolate: found "connection" for chain locals, which has keep = true; allowed: client: a connection'
        " does not come back",
    ),
]


@pytest.mark.parametrize(("old", "new", "line"), ROWS, ids=[row[2][:60] for row in ROWS])
def test_one_mistake_makes_one_line(old: str, new: str, line: str) -> None:
    assert MANIFEST.count(old) == 1
    with pytest.raises(ManifestError) as caught:
        load(MANIFEST.replace(old, new))
    assert caught.value.problems == (f"edge.toml: {line}",)


def test_an_upstream_that_no_template_may_use() -> None:
    assert find_warnings(load(MANIFEST.replace('["cache", "db"]', '["db"]'))) == [
        "edge.toml: upstream.cache: no template is granted it"
    ]


@pytest.mark.parametrize(
    ("port", "line"),
    [
        (
            PortSettings(name="p", kind="tcp", listen="1.2.3.4"),
            'settings: port.p.listen: found "1.2.3.4"; allowed: an IP',
        ),
        (PortSettings(name="p", kind="unix", listen="/s", mode=0o1777), "settings: port.p.mode: found 1023; allowed: "),
        (
            PortSettings(name="p", kind="tcp", listen="1.2.3.4:5", idle_timeout_ns=1),
            'settings: port.p.idle_timeout: found 1ns; allowed: 1ms to 1d, or "0" for none',
        ),
    ],
)
def test_settings_of_a_program_are_checked_alike(port: PortSettings, line: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check_settings(Manifest(ports=(port,)))
    assert [problem.startswith(line) for problem in caught.value.problems] == [True]


def test_grants_of_a_program_are_checked_alike() -> None:
    template = TemplateSettings(name="t", source=Path("app.c"), grant=Grants(connect=("db",), timer=1))  # type: ignore[arg-type]
    manifest = Manifest(
        ports=(PortSettings(name="p", kind="udp", listen="127.0.0.1:53"),),
        templates=(template,),
        chains=(ChainSettings(name="c", path=("p", "t")),),
        rules=(),
    )
    with pytest.raises(ManifestError) as caught:
        check_settings(manifest)
    assert caught.value.problems == (
        "settings: template.t.grant.timer: found 1; allowed: true or false",
        'settings: template.t.grant.connect: found "db"; allowed: an upstream, but there is none',
    )
    with pytest.raises(ManifestError) as caught:
        check_settings(Manifest(templates=(TemplateSettings(name="t", source=Path("app.c"), grant="all"),)))  # type: ignore[arg-type]
    assert caught.value.problems == ('settings: template.t.grant: found "all"; allowed: a record of type Grants',)


def test_rules_of_connections_hold_for_links_written_without_spaces() -> None:
    rule = 'match = "sni www.example.com from web"\nisolate = "connection"'
    text = MANIFEST.replace('path = ["web", "app"]', 'links = ["web->app"]').replace('match = "from web"', rule)
    assert load(text).rules[0].isolate == "connection"
