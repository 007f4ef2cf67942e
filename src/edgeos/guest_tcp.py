"""Templates with `tcp = true`, whose guests speak TCP by themselves: what they need, and where in a chain they stand.

The TCP is compiled into the guest, so it gets packets where a listener would give it connections, and is the end of
their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from edgeos.endpoint import Address
from edgeos.findings import BadValueError, listed, quoted, shown
from edgeos.graph import FORWARD, ChainGraph
from edgeos.match import PROTOCOLS
from edgeos.settings import Grants, Manifest, PortSettings, RuleSettings, TemplateSettings

SERVICES: Final = ("memcached",)
"""Appliances that serve connections; the others handle packets."""

_GRANTS: Final = ("timer", "random")  # to repeat what was lost; for sequence numbers that nobody guesses


def check_origin(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    """What cannot be built with TCP."""
    if not template.tcp:
        return
    if template.module is not None:
        allowed = "no tcp for a module, which is as it was built"
        yield "tcp", BadValueError("true beside module", allowed, "build it with `edgeos build --tcp`")
    elif template.click is not None:
        yield "tcp", BadValueError("true beside click", "no tcp for click: its elements handle packets")
    elif template.appliance is not None and template.appliance not in SERVICES:
        found = f"true for the appliance {shown(template.appliance)}, which handles packets"
        yield "tcp", BadValueError(found, f"tcp for source, or for the appliance {listed(SERVICES)}")


def check_grants(template: TemplateSettings) -> Iterator[BadValueError]:
    """Grants that TCP needs, and the one that it has no use for; those of a module are seen when it is loaded."""
    if not template.tcp:
        return
    if template.grant.connect:
        yield BadValueError("connect with tcp = true", "no upstreams for a guest that speaks TCP itself")
    missing = [name for name in _GRANTS if not getattr(template.grant, name)]
    if missing:
        keys = ", ".join(f"{name} = true" for name in missing)
        fix = f"add grant = {{ {keys} }}" if template.grant == Grants() else f"add {keys} to it"
        yield BadValueError(
            f"no {' and no '.join(missing)} with tcp = true", "timer and random, which a guest's TCP calls", fix
        )


def check_tcp_stages(graph: ChainGraph, manifest: Manifest) -> Iterator[BadValueError]:
    """Stages that speak TCP where connections come in instead of packets, or where a way leads on."""
    listeners = {port.name for port in manifest.ports if port.is_listener}
    listener = next((entry.port for entry in graph.entries if entry.port in listeners), None)
    names = _tcp_names(manifest)
    for stage in graph.stages:
        if stage.template not in names:
            continue
        if listener is not None:
            yield BadValueError(
                f"the listener {shown(listener)} in front of {shown(stage.name)}, which speaks TCP itself",
                "ports for packets in front of it",
                f"take tcp = true out of template.{quoted(stage.template)}, or start the chain at an afxdp port",
            )
        if stage.outs[FORWARD]:
            to = stage.outs[FORWARD][0]
            behind = to[1] if to[0] == "port" else graph.stages[to[1]].name
            yield BadValueError(
                f"{shown(behind)} behind {shown(stage.name)}, which speaks TCP itself",
                "such a stage at the end: its connections go no further",
            )


def find_tcp_warnings(
    manifest: Manifest, graphs: Mapping[str, ChainGraph], addresses: Mapping[str, set[Address]]
) -> Iterator[tuple[str, str]]:
    """What keeps clients from reaching guests that speak TCP: a key and why. `addresses` are by device."""
    names = _tcp_names(manifest)
    chains = {name for name, graph in graphs.items() if any(stage.template in names for stage in graph.stages)}
    for port in manifest.ports:
        entered = {name for name, graph in graphs.items() for entry in graph.entries if entry.port == port.name}
        serving = sorted(entered & chains)
        if serving:
            yield from _warn_of_resets(port, serving, manifest, addresses)
            passed = any(port.name in rule.pass_ports for rule in manifest.rules)
            if port.kind == "afxdp" and not port.take and entered <= chains and not passed:
                yield (
                    f"port.{port.name}.take",
                    f"without it ARP is taken too, and chain {serving[0]} does not answer it;"
                    ' name what is served, such as take = ["tcp dst port 80"]',
                )


def _warn_of_resets(
    port: PortSettings, chains: list[str], manifest: Manifest, addresses: Mapping[str, set[Address]]
) -> Iterator[tuple[str, str]]:
    """The kernel's TCP sees what a packet socket sees, and refuses connections to its own addresses."""
    if port.device is None or "afpacket" not in (port.kind, port.fallback):
        return
    own = sorted((a for a in addresses.get(port.device, ()) if not a.is_link_local), key=str)
    rules = [rule for rule in manifest.rules if rule.chain in chains and rule.match.port in (None, port.name)]
    served = [address for address in own if any(_may_serve(rule, address) for rule in rules)]
    if served:
        key = "kind" if port.kind == "afpacket" else "fallback"
        yield (
            f"port.{port.name}.{key}",
            f"with afpacket the kernel sees the packets too, and resets connections to {served[0]} of {port.device}"
            f' that chain {chains[0]} serves; use kind = "afxdp" with take, or let the system\'s firewall drop them',
        )


def _may_serve(rule: RuleSettings, address: Address) -> bool:
    """True if the rule lets in clients of TCP that call the address."""
    match = rule.match
    return (
        match.ip is not False
        and match.ip_version in (0, address.version)
        and match.protocol in (None, PROTOCOLS["tcp"])
        and (match.dst is None or address in match.dst)
    )


def _tcp_names(manifest: Manifest) -> set[str]:
    return {template.name for template in manifest.templates if template.tcp is True}
