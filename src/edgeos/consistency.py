"""What settings must keep to together: names that exist, files and devices used once, chains that are chains.

Every function speaks of a whole manifest; what a single value may be is checked in `edgeos.kinds`.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from edgeos.click.place import check_stages, unused_definitions
from edgeos.contention import find_contention
from edgeos.errors import ManifestError
from edgeos.findings import BadValueError, Findings, listed, nearest, quoted, shown, unknown
from edgeos.graph import FORWARD, REVERSE, ChainGraph, build_graph
from edgeos.guest_tcp import check_grants, check_tcp_stages, find_tcp_warnings
from edgeos.interfaces import device_addresses
from edgeos.schema import KEPT, RECORDS, not_kept
from edgeos.settings import (
    ChainSettings,
    Grants,
    Manifest,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    TenantSettings,
    UnmatchedSettings,
    UpstreamSettings,
)
from edgeos.sharing import number_of_workers, what_keeps_workers_apart

NamedRecord = PortSettings | UpstreamSettings | TemplateSettings | ChainSettings | TenantSettings
Record = NodeSettings | NamedRecord | Grants | RuleSettings | UnmatchedSettings
Names = Mapping[str, Collection[str]]


def tables(manifest: Manifest) -> Iterator[tuple[str, Record]]:
    """Each record with the name of its table in messages; rules count from 1."""
    yield "node", manifest.node
    for title, records in named_records(manifest).items():
        for record in records:
            table = f"{title}.{quoted(str(record.name))}"
            yield table, record
            if isinstance(record, TemplateSettings) and isinstance(record.grant, Grants):
                yield f"{table}.grant", record.grant
    for number, rule in enumerate(manifest.rules, 1):
        yield rule_table(number), rule
    if manifest.unmatched is not None:
        yield "unmatched", manifest.unmatched


def named_records(manifest: Manifest) -> Mapping[str, tuple[NamedRecord, ...]]:
    """The records that have names, by section."""
    return {
        "port": manifest.ports,
        "upstream": manifest.upstreams,
        "template": manifest.templates,
        "chain": manifest.chains,
        "tenant": manifest.tenants,
    }


def rule_table(number: int) -> str:
    """How messages call a rule; the first is number 1."""
    return f"rule #{number}"


def check_consistency(findings: Findings, manifest: Manifest, names: Names) -> None:
    """Adds what does not fit together. `names` are all names by section, also those of records too bad to be made."""
    for table, record in tables(manifest):
        for agreement in RECORDS[type(record)].agreements:
            if not findings.is_bad(table, agreement.keys):
                for key, problem in agreement.check(record):
                    findings.report(table, key, problem)
    for name in sorted(set(names["port"]) & set(names["template"])):
        findings.report(
            f"template.{quoted(name)}",
            "",
            BadValueError("the name of a port", "a name that no port and no template has"),
        )
    _check_resources(findings, manifest)
    _check_grants(findings, manifest, names)
    findings.problems.extend(missing_devices(manifest))
    graphs = _check_chains(findings, manifest, names)
    if not findings.problems:
        for table, problem in find_contention(manifest, graphs, device_addresses()):
            findings.report(table, "listen", problem)
    _check_rules(findings, manifest, names, graphs)
    _check_unmatched(findings, manifest, names)
    if not findings.problems and manifest.node.workers > 1:
        for table, key, problem in what_keeps_workers_apart(manifest, graphs):
            findings.report(table, key, problem)


def missing_devices(manifest: Manifest) -> list[str]:
    """A finding for each port whose network device does not exist now; a TAP device is made when it is opened."""
    packet_ports = [port for port in manifest.ports if port.kind in ("afpacket", "afxdp")]
    wanted = {port.name: port.device for port in packet_ports if isinstance(port.device, str)}
    # Not from /sys/class/net, which shows the namespace in which it was mounted instead of the caller's. Asked for only
    # when needed: a service that has listeners only may be without AF_NETLINK.
    devices = sorted(name for _, name in socket.if_nameindex()) if wanted else []
    findings = Findings(manifest.path)
    for port, device in wanted.items():
        if device not in devices:
            problem = BadValueError(f"{shown(device)}, which does not exist", listed(devices), nearest(device, devices))
            findings.report(f"port.{quoted(port)}", "device", problem)
    return findings.problems


def find_warnings(manifest: Manifest) -> list[str]:
    """What is allowed but hardly meant, for settings without findings: things nothing uses, rules that never match."""
    findings = Findings(manifest.path)
    names = {title: [record.name for record in records] for title, records in named_records(manifest).items()}
    graphs = {chain.name: build_graph(chain, names["port"], names["template"]) for chain in manifest.chains}
    passed: set[str | None] = {port for rule in manifest.rules for port in rule.pass_ports}
    used: dict[str, set[str | None]] = {
        "port": passed | {entry.port for graph in graphs.values() for entry in graph.entries},
        "template": {stage.template for graph in graphs.values() for stage in graph.stages},
        "chain": {rule.chain for rule in manifest.rules},
        "tenant": {rule.tenant for rule in manifest.rules},
        "upstream": {name for template in manifest.templates for name in template.grant.connect},
    }
    if manifest.unmatched is not None:  # its answers may name any
        used |= {title: set(names[title]) for title in ("port", "chain", "tenant")}
    users = {
        "port": "no chain uses it",
        "template": "no chain uses it",
        "chain": "no rule uses it",
        "tenant": "no rule names it",
    }
    for title, declared in names.items():
        for name in declared:
            if name not in used[title]:
                findings.add(f"{title}.{name}", users.get(title, "no template is granted it"))
    for template in manifest.templates:
        for name in unused_definitions(template):
            findings.add(f"template.{template.name}.define", f"the configuration has no ${name}")
    _warn_of_rules(findings, manifest)
    _warn_of_files(findings, manifest, graphs)
    _warn_of_workers(findings, manifest)
    for key, text in find_tcp_warnings(manifest, graphs, device_addresses()):
        findings.add(key, text)
    return findings.problems


def _warn_of_workers(findings: Findings, manifest: Manifest) -> None:
    workers = number_of_workers(manifest)
    if workers == 1:
        return
    for chain in manifest.chains:
        if chain.isolate == "shared":
            findings.add(f"chain.{chain.name}.isolate", f'"shared" is one FWP for each of {workers} workers')


def _check_resources(findings: Findings, manifest: Manifest) -> None:
    """A file or device belongs to one key of one port."""
    users: dict[object, str] = {}
    for port in manifest.ports:
        table = f"port.{quoted(str(port.name))}"
        for key, what in (("read", "file"), ("write", "file"), ("device", "device"), ("listen", "address")):
            value = getattr(port, key)
            if value is None or findings.is_bad(table, (key,)):
                continue
            identity = _identity(port, value)
            if identity is None:
                continue
            user = users.setdefault(identity, f"{table}.{key}")
            if user != f"{table}.{key}":
                problem = BadValueError(f"{shown(str(value))}, which {user} uses", f"{_a(what)} of its own")
                findings.report(table, key, problem)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _identity(port: PortSettings, value: object) -> object:
    """Equal for two values that mean one thing which only one port can have; None for what many may share."""
    if isinstance(value, Path):
        return _file_identity(value)
    if isinstance(value, str) and port.kind == "unix":
        return os.path.realpath(value)
    return (port.kind, value) if port.is_listener else value


def _check_grants(findings: Findings, manifest: Manifest, names: Names) -> None:
    for table, record in tables(manifest):
        if not isinstance(record, Grants) or findings.is_bad(table, ("connect",)):
            continue
        for name in record.connect:
            if name not in names["upstream"]:
                none = "an upstream, but there is none"
                findings.report(table, "connect", unknown(name, names["upstream"], none))
        if len(set(record.connect)) < len(record.connect):
            findings.report(table, "connect", BadValueError("an upstream twice", "each upstream once"))
    for table, record in tables(manifest):
        if not isinstance(record, TemplateSettings) or findings.is_bad(table, ("tcp", "grant")):
            continue
        if not findings.is_bad(f"{table}.grant", ("timer", "random")):
            for problem in check_grants(record):
                findings.report(table, "grant", problem)


def _file_identity(path: Path) -> object:
    """Equal for two names of one file; None for what many may share, such as /dev/null."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return None if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


def _check_chains(findings: Findings, manifest: Manifest, names: Names) -> dict[str, ChainGraph]:
    graphs = {}
    for chain in manifest.chains:
        if findings.is_bad(f"chain.{quoted(str(chain.name))}", ("path", "links")):
            continue
        try:
            graphs[chain.name] = build_graph(chain, names["port"], names["template"])
        except ManifestError as error:
            findings.problems.extend(f"{findings.file}: {problem}" for problem in error.problems)
            continue
        _check_listeners(findings, chain, graphs[chain.name], {port.name: port for port in manifest.ports})
        _check_configurations(findings, chain, graphs[chain.name], manifest)
        for problem in check_tcp_stages(graphs[chain.name], manifest):
            findings.report(f"chain.{quoted(str(chain.name))}", "links" if chain.links else "path", problem)
    return graphs


def _check_configurations(findings: Findings, chain: ChainSettings, graph: ChainGraph, manifest: Manifest) -> None:
    """Click configurations in their places, those left out that have mistakes of their own."""
    keys = ("appliance", "click", "define", "devices")
    templates = {t.name: t for t in manifest.templates if not findings.is_bad(f"template.{quoted(t.name)}", keys)}
    for problem in check_stages(graph, templates):
        findings.report(f"chain.{quoted(str(chain.name))}", "links" if chain.links else "path", problem)


def _check_listeners(
    findings: Findings, chain: ChainSettings, graph: ChainGraph, ports: Mapping[str, PortSettings]
) -> None:
    """Connections and packets do not meet in one chain, and connections come from one end only."""
    table = f"chain.{quoted(str(chain.name))}"
    key = "links" if chain.links else "path"
    members = [ports[entry.port] for entry in graph.entries if entry.port in ports]
    listener = next((port.name for port in members if port.is_listener), None)
    packets = next((port.name for port in members if not port.is_listener), None)
    if listener is not None and packets is not None:
        found = f"the listener {shown(listener)} beside {shown(packets)}, a port for packets"
        findings.report(table, key, BadValueError(found, "listeners only, or ports for packets only"))
    elif listener is not None:
        behind = [out[1] for stage in graph.stages for out in stage.outs[FORWARD] if out[0] == "port"]
        if behind:
            found = f"the listener {shown(behind[0])} at the far end"
            findings.report(table, key, BadValueError(found, "listeners at the front only, and templates behind them"))
    if packets is not None and chain.isolate == "connection" and not findings.is_bad(table, ("isolate",)):
        found = f'"connection" with {shown(packets)}, a port for packets'
        findings.report(table, "isolate", BadValueError(found, "shared, client, flow", 'did you mean "flow"?'))
    if listener is not None and chain.keep is True and chain.isolate == "flow":
        findings.report(table, "keep", not_kept("flow", listener))


def _check_rules(findings: Findings, manifest: Manifest, names: Names, graphs: Mapping[str, ChainGraph]) -> None:
    for table, rule in tables(manifest):
        if not isinstance(rule, RuleSettings):
            continue
        if rule.chain is not None and not findings.is_bad(table, ("chain",)) and rule.chain not in names["chain"]:
            findings.report(table, "chain", unknown(rule.chain, names["chain"], "a chain, but there is none"))
        if rule.tenant is not None and not findings.is_bad(table, ("tenant",)) and rule.tenant not in names["tenant"]:
            findings.report(table, "tenant", unknown(rule.tenant, names["tenant"], "a tenant, but there is none"))
        graph = graphs.get(rule.chain or "")
        entries = [entry.port for entry in graph.entries] if graph is not None else []
        _check_rule_ports(findings, table, rule, manifest, names, entries)
        _check_rule_keep(findings, table, rule, manifest, entries)
        _check_server_name(findings, table, rule, manifest, entries)
        if findings.is_bad(table, ("match",)) or rule.match.port is None:
            continue
        port = rule.match.port
        if port not in names["port"]:
            findings.report(table, "match", unknown(port, names["port"], "a port, but there is none"))
        elif graph is not None and port not in entries:
            problem = BadValueError(f'"from {port}" for chain {rule.chain}', f"its ports: {listed(entries)}")
            findings.report(table, "match", problem)


def _check_unmatched(findings: Findings, manifest: Manifest, names: Names) -> None:
    """The chain of those without an answer."""
    default = None if manifest.unmatched is None else manifest.unmatched.default
    if default is not None and not findings.is_bad("unmatched", ("default",)) and default not in names["chain"]:
        findings.report("unmatched", "default", unknown(default, names["chain"], "a chain, but there is none"))


def _check_rule_ports(
    findings: Findings, table: str, rule: RuleSettings, manifest: Manifest, names: Names, entries: Collection[str]
) -> None:
    """Ports that messages are passed on between, and the isolation in a chain with these ports of entry."""
    listeners = {port.name for port in manifest.ports if port.is_listener}
    for name in () if findings.is_bad(table, ("pass_ports",)) else rule.pass_ports:
        if name not in names["port"]:
            findings.report(table, "pass", unknown(name, names["port"], "a port, but there is none"), "pass_ports")
        elif name in listeners:
            problem = BadValueError(f"the listener {shown(name)}", "ports for packets; connections need a chain")
            findings.report(table, "pass", problem, "pass_ports")
    if rule.isolate == "connection" and entries and listeners.isdisjoint(entries):
        problem = BadValueError('"connection" for a chain of ports for packets', "shared, client, flow")
        findings.report(table, "isolate", problem)


def _check_rule_keep(
    findings: Findings, table: str, rule: RuleSettings, manifest: Manifest, entries: Collection[str]
) -> None:
    """A rule's own isolation must be one whose clients can be parked, where its chain parks them."""
    chain = next((chain for chain in manifest.chains if chain.name == rule.chain), None)
    if chain is None or chain.keep is not True or rule.isolate is None or findings.is_bad(table, ("isolate",)):
        return
    listener = next((port.name for port in manifest.ports if port.is_listener and port.name in entries), None)
    if rule.isolate not in KEPT or (rule.isolate == "flow" and listener is not None):
        found = f'"{rule.isolate}" for chain {chain.name}, which has keep = true'
        findings.report(table, "isolate", BadValueError(found, not_kept(rule.isolate, listener).allowed))


def _check_server_name(
    findings: Findings, table: str, rule: RuleSettings, manifest: Manifest, entries: Collection[str]
) -> None:
    """Only connections of TCP listeners name a server."""
    if findings.is_bad(table, ("match",)) or rule.match.server_name is None:
        return
    ends = {port.name for port in manifest.ports if port.kind == "tcp"}
    if rule.pass_ports or (entries and ends.isdisjoint(entries)):
        where = "pass" if rule.pass_ports else f"chain {rule.chain}, which has no port of kind tcp"
        problem = BadValueError(f'"sni {rule.match.server_name}" with {where}', "sni for connections of TCP listeners")
        findings.report(table, "match", problem)


def _warn_of_rules(findings: Findings, manifest: Manifest) -> None:
    if not manifest.rules and manifest.unmatched is None:
        findings.add("rule", "there is none, so every message is dropped")
    asked = sorted(enumerate(manifest.rules, 1), key=lambda numbered: -numbered[1].priority)
    for place, (later, rule) in enumerate(asked):
        for earlier, other in asked[:place]:
            if other.match.covers(rule.match):
                text = f"never matches, because {rule_table(earlier)}, {shown(str(other.match))}, comes first"
                findings.add(rule_table(later), text)
                break


def _warn_of_files(findings: Findings, manifest: Manifest, graphs: Mapping[str, ChainGraph]) -> None:
    """Warns of capture files that messages are sent to without a file to hold them."""
    ports = {port.name: port for port in manifest.ports}
    for name, graph in graphs.items():
        for direction in (FORWARD, REVERSE):
            sources = [ports[entry.port] for entry in graph.entries if entry.direction == direction]
            if all(port.kind == "pcap" and port.read is None for port in sources):
                continue  # nothing travels this way
            targets = {out[1] for stage in graph.stages for out in stage.outs[direction] if out[0] == "port"}
            for target in sorted(targets):
                if ports[target].kind == "pcap" and ports[target].write is None:
                    text = f"chain {name} sends to it, but it has no write file: those messages are dropped"
                    findings.add(f"port.{target}", text)
