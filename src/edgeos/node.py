"""A node: ports, templates, chains and rules made into a running data plane.

The kernel moves the messages on a thread of its own; this module sets it up, starts and stops it, and reads counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wasmtime import _ffi as wasmtime_ffi

from edgeos import _native
from edgeos.chain import Chain
from edgeos.checkpoint import Checkpoint
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError, GuestError, LimitError
from edgeos.graph import ChainGraph, Destination, build_graph
from edgeos.guest import WASMTIME_VERSION, load_guest
from edgeos.handlers import HandlerAnswer, address_bytes, check_request, counter_answers, guest_answer
from edgeos.manifest import check_settings
from edgeos.match import Match, parse_match
from edgeos.port import Port, open_native_port, port_kind
from edgeos.settings import (
    ChainSettings,
    Manifest,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    UpstreamSettings,
)
from edgeos.statistics import ClientStatistics, NodeStatistics, client_statistics, node_statistics
from edgeos.template import Template

GUARD_FWPS_MAX = 256
"""With `memory = "auto"`, memories lie 4 GiB apart (quicker code) up to so many FWPs, and close together beyond."""

MAPPINGS_PER_FWP = 4
MAPPINGS_SPARE = 4096

_ISOLATION = {"shared": 0, "client": 1, "connection": 2, "flow": 2}
_WHEN_FULL = {"refuse": 0, "evict": 1}
_ON_KILL = {"restart": 0, "block": 1}
_WAIT = {"adaptive": 0, "spin": 1, "block": 2}
_NONE, _DROP, _STAGE, _PORT = 0, 1, 2, 3

_RouteRow = list[tuple[int, int, int, int]]


class Node:
    """One node. A context manager: leaving it stops the data plane and closes the ports.

        with Node() as node:
            node.add_port(PortSettings(name="lan", kind="pcap", read=Path("in.pcap")))
            node.add_port(PortSettings(name="wan", kind="pcap", write=Path("out.pcap")))
            node.add_template(TemplateSettings(name="fw", appliance="firewall", config=b"allow ip"))
            node.add_chain(ChainSettings(name="edge", path=("lan", "fw", "wan")))
            node.add_rule("ip", chain="edge")
            print(node.run())

    Ports, templates, chains and rules are added before the first `start`, `run` or `run_once`, which check them all.
    """

    def __init__(self, settings: NodeSettings | None = None, *, progress: Callable[[str], None] | None = None) -> None:
        self._manifest = Manifest(node=settings or NodeSettings())
        self._native_ports: dict[str, _native.Port] = {}
        self._progress = progress
        self._guests: dict[str, Checkpoint] = {}
        self._worker: _native.Worker | None = None
        self._graphs: list[ChainGraph] = []
        self._counter_names: dict[str, list[str]] = {}
        self._closed: NodeStatistics | None = None

    @classmethod
    def from_manifest(cls, manifest: Manifest, *, progress: Callable[[str], None] | None = None) -> Self:
        """A node that runs what a manifest says; `edgeos.load_manifest` reads one from a file."""
        node = cls(manifest.node, progress=progress)
        node._manifest = manifest
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_port(self, port: PortSettings | Port) -> None:
        """Adds a port by its settings, or one that is open: from `edgeos.open_port` or `edgeos.testing.memory_port`."""
        self._require_setup()
        if isinstance(port, PortSettings):
            settings = port
        else:
            settings = PortSettings(name=port.name, kind="memory")
            self._native_ports[port.name] = port
        self._manifest = replace(self._manifest, ports=(*self._manifest.ports, settings))

    def add_upstream(self, upstream: UpstreamSettings) -> None:
        """Adds a service that templates may be granted to connect to."""
        self._require_setup()
        self._manifest = replace(self._manifest, upstreams=(*self._manifest.upstreams, upstream))

    def add_template(self, template: TemplateSettings | Template) -> None:
        """Adds a template; given its settings, the guest is built and initialised when the node starts."""
        self._require_setup()
        settings = template.settings if isinstance(template, Template) else template
        if isinstance(template, Template):
            self._guests[settings.name] = template.checkpoint
        self._manifest = replace(self._manifest, templates=(*self._manifest.templates, settings))

    def add_chain(self, chain: ChainSettings) -> Chain:
        """Adds a chain of ports and templates that the node has, or will have when it starts."""
        self._require_setup()
        self._manifest = replace(self._manifest, chains=(*self._manifest.chains, chain))
        return Chain(self, chain)

    def add_rule(self, match: str | Match, *, chain: str | None = None, drop: bool = False) -> None:
        """Adds a rule behind those there are: flows that match go through the chain, or are dropped."""
        self._require_setup()
        parsed = parse_match(match) if isinstance(match, str) else match
        rule = RuleSettings(match=parsed, chain=chain, drop=drop)
        self._manifest = replace(self._manifest, rules=(*self._manifest.rules, rule))

    def start(self) -> None:
        """Starts the data plane. Raises ManifestError, GuestError, PortError or LimitError, with nothing left open."""
        try:
            self._prepared().start()
        except RuntimeError as error:
            raise EdgeosError(str(error)) from None

    def run(
        self,
        *,
        duration: float | None = None,
        on_tick: Callable[[NodeStatistics], None] | None = None,
        interval: float = 0.5,
    ) -> NodeStatistics:
        """Runs until every port is at its end or `duration` (seconds) is over; KeyboardInterrupt passes through.

        `on_tick` is called every `interval` seconds. Returns the statistics of the whole run.
        """
        self.start()
        end = None if duration is None else time.monotonic() + duration
        while not self.wait(interval if end is None else min(interval, end - time.monotonic())):
            if on_tick is not None:
                on_tick(self.statistics(guest_counters=False))
            if end is not None and time.monotonic() >= end:
                break
        return self.stop()

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds. True once all ports are at their ends and every message is accounted for."""
        worker = self._prepared()
        finished = worker.wait_finished(max(0, int(timeout * 1e9)))
        if worker.failure:
            raise EdgeosError(f"the data plane stopped: {worker.failure}")
        return finished

    def run_once(self) -> bool:
        """One iteration of the data plane on this thread, for tests; True if there was anything to do."""
        try:
            return self._prepared().run_once()
        except RuntimeError as error:
            raise EdgeosError(str(error)) from None

    def statistics(self, *, guest_counters: bool = True) -> NodeStatistics:
        """The counters as they are now. Summing the guests' own takes time in proportion to the live clients."""
        if self._closed is not None:
            return self._closed
        kinds: dict[str, str] = {port.name: port.kind for port in self._manifest.ports}
        kinds.update({name: port_kind(port) for name, port in self._native_ports.items()})
        return node_statistics(self._prepared().snapshot(guest_counters), kinds)

    def clients(self, chain: str) -> tuple[ClientStatistics, ...]:
        """The live clients of a chain with their guests' counters. KeyError when there is no such chain."""
        number = self._chain_number(chain)
        worker = self._prepared()
        stages = [(stage.name, self._counter_names[stage.template]) for stage in self._graphs[number].stages]
        return tuple(client_statistics(raw, stages) for raw in worker.clients(number))

    def read_handler(self, chain: str, stage: str, client: str | None, name: str) -> tuple[HandlerAnswer, ...]:
        """Reads a named value of the guest at a stage: of one client (its address), or of all live ones with None.

        Counters are read as they are; other names are put to the guests, between two bursts and under their budget.
        KeyError when there is no such chain or stage; EdgeosError when the guest has nothing of this name.
        """
        number, index = self._stage_number(chain, stage)
        check_request(name, b"")
        if name in self._counter_names[self._graphs[number].stages[index].template]:
            return tuple(counter_answers(self.clients(chain), stage, name, client))
        return self._access(number, index, client, name, None)

    def write_handler(
        self, chain: str, stage: str, client: str | None, name: str, value: bytes | str
    ) -> tuple[HandlerAnswer, ...]:
        """Writes a named value of the guest at a stage: of one client (its address), or of all that live with None.

        Clients that come later start from the checkpoint and know nothing of it. Errors as `read_handler`; what one
        client's guest refuses stands in its answer's `problem`.
        """
        number, index = self._stage_number(chain, stage)
        data = value.encode() if isinstance(value, str) else value
        check_request(name, data)
        return self._access(number, index, client, name, data)

    def _stage_number(self, chain: str, stage: str) -> tuple[int, int]:
        number = self._chain_number(chain)
        self._prepared()
        names = [found.name for found in self._graphs[number].stages]
        if stage not in names:
            raise KeyError(stage)
        return number, names.index(stage)

    def _access(
        self, chain: int, stage: int, client: str | None, name: str, value: bytes | None
    ) -> tuple[HandlerAnswer, ...]:
        address = None if client is None else address_bytes(client)
        try:
            raw = self._prepared().access(
                chain, stage, address, write=value is not None, name=name.encode(), value=value or b""
            )
        except RuntimeError as error:
            raise EdgeosError(str(error)) from None
        return tuple(guest_answer(answer, name) for answer in raw)

    def close_chain(self, chain: str) -> None:
        """Takes no new clients for a chain from now on; the living leave as soon as no message of theirs is in flight.

        Their flows then meet the remaining rules. KeyError when there is no such chain.
        """
        number = self._chain_number(chain)
        if self._worker is not None and self._closed is None:
            self._worker.close_chain(number)

    def set_fake_time(self, ns: int) -> None:
        """Sets the clock that timeouts run by, nanoseconds; 0 returns to real time. For tests."""
        self._prepared().set_fake_time(ns)

    def stop(self) -> NodeStatistics:
        """Stops the data plane; what is still in flight is dropped and counted. Returns the final statistics."""
        if self._closed is not None:
            return self._closed
        worker = self._prepared()
        before = self.statistics(guest_counters=False)
        worker.stop()
        after = self.statistics()
        # Stopping unbinds every FWP; how many were live is what the user wants to know.
        chains = tuple(replace(chain, live=live.live) for chain, live in zip(after.chains, before.chains, strict=True))
        self._closed = replace(after, chains=chains)
        return self._closed

    def close(self) -> None:
        """Stops and lets go of everything. Statistics stay readable."""
        if self._worker is not None and self._closed is None:
            self.stop()
        self._worker = None
        self._native_ports.clear()

    def _chain_number(self, chain: str) -> int:
        names = [settings.name for settings in self._manifest.chains]
        if chain not in names:
            raise KeyError(chain)
        return names.index(chain)

    # ---- Set-up ----

    def _require_setup(self) -> None:
        if self._worker is not None or self._closed is not None:
            raise EdgeosError("ports, templates, chains and rules are added before the node starts")

    def _prepared(self) -> _native.Worker:
        if self._closed is not None:
            raise EdgeosError("the node has been stopped")
        if self._worker is None:
            self._worker = self._make_worker()
        return self._worker

    def _make_worker(self) -> _native.Worker:
        manifest = self._manifest
        check_settings(manifest)
        port_names = [port.name for port in manifest.ports]
        template_names = [template.name for template in manifest.templates]
        self._graphs = [build_graph(chain, port_names, template_names) for chain in manifest.chains]
        cache = CodeCache()
        guests = [
            self._guests.get(template.name) or load_guest(template, cache, self._progress)
            for template in manifest.templates
        ]
        self._counter_names = {
            template.name: [counter.name for counter in guest.layout.counters]
            for template, guest in zip(manifest.templates, guests, strict=True)
        }
        engine = engine_settings(manifest)
        worker = make_worker(engine, manifest.node)
        for template, guest in zip(manifest.templates, guests, strict=True):
            _add_template(worker, template, guest, engine, cache)
        for port in manifest.ports:
            if port.name not in self._native_ports:
                self._native_ports[port.name] = open_native_port(port)
            worker.add_port(self._native_ports[port.name])
        domains = _domains(self._graphs)
        for chain, graph, domain in zip(manifest.chains, self._graphs, domains, strict=True):
            _add_chain(worker, chain, graph, domain, port_names, template_names)
        chain_names = [chain.name for chain in manifest.chains]
        for rule in manifest.rules:
            worker.add_rule(_native_rule(rule, chain_names, port_names))
        return worker


def engine_settings(manifest: Manifest) -> _native.EngineSettings:
    """The pool that all chains at their limits need. Raises LimitError when the system allows fewer mappings."""
    fwps = sum(chain.max_fwps for chain in manifest.chains) + sum(t.ready_high for t in manifest.templates) + 1
    compact = manifest.node.memory == "compact" or (manifest.node.memory == "auto" and fwps > GUARD_FWPS_MAX)
    _check_mappings(fwps)
    return make_engine_settings(fwps, max((t.memory for t in manifest.templates), default=65536), compact=compact)


def make_engine_settings(fwps: int, memory_max: int, *, compact: bool) -> _native.EngineSettings:
    """Settings of an engine for so many FWPs with memories of up to `memory_max` bytes."""
    return _native.EngineSettings(
        fwps=fwps, memory_max=memory_max, compact=compact, copy_on_write=not compact, keep_resident=24 * 1024
    )


def _check_mappings(fwps: int) -> None:
    path = Path("/proc/sys/vm/max_map_count")
    limit = int(path.read_text()) if path.exists() else 65530
    needed = fwps * MAPPINGS_PER_FWP + MAPPINGS_SPARE
    if needed > limit:
        raise LimitError(
            f"{fwps} FWPs need up to {needed} memory mappings, this system allows {limit}; "
            f"lower max_fwps, or as root: sysctl -w vm.max_map_count={needed}"
        )


def make_worker(engine: _native.EngineSettings, settings: NodeSettings) -> _native.Worker:
    """A worker with nothing in it yet."""
    _native.open_wasmtime(str(wasmtime_ffi.filename))
    try:
        return _native.Worker(
            engine,
            dedicated_mover=settings.mover == "dedicated",
            wait=_WAIT[settings.wait],
            max_flows=settings.max_flows,
        )
    except RuntimeError as error:
        raise LimitError(str(error)) from None


def _add_template(
    worker: _native.Worker,
    template: TemplateSettings,
    guest: Checkpoint,
    engine: _native.EngineSettings,
    cache: CodeCache,
) -> None:
    key: list[bytes | str] = ["native", WASMTIME_VERSION, engine.code_key, guest.wasm]
    layout = guest.layout
    try:
        worker.add_template(
            template.name,
            cache.get(key, lambda: worker.compile(guest.wasm)),
            slots=layout.slots,
            slot_size=layout.slot_size,
            slot_stride=layout.slot_stride,
            messages=layout.messages,
            verdicts=layout.verdicts,
            data=layout.data,
            memory=guest.initial_memory,
            stack=layout.stack_pointer,
            counters=[(counter.name, counter.address) for counter in layout.counters],
            budget_ns=template.budget_ns,
            ready_low=template.ready_low,
            ready_high=template.ready_high,
            timer=template.grant.timer,
            clock=template.grant.clock,
            random=template.grant.random,
        )
    except RuntimeError as error:
        raise GuestError(f"template.{template.name}: {error}") from None


def _add_chain(
    worker: _native.Worker,
    chain: ChainSettings,
    graph: ChainGraph,
    domain: int,
    ports: Sequence[str],
    templates: Sequence[str],
) -> None:
    stages = [
        (
            stage.name,
            templates.index(stage.template),
            _routes(stage.outs[0], stage.outs[1], 0, ports),
            _routes(stage.outs[1], stage.outs[0], 1, ports),
        )
        for stage in graph.stages
    ]
    worker.add_chain(
        chain.name,
        isolation=_ISOLATION[chain.isolate],
        when_full=_WHEN_FULL[chain.when_full],
        on_kill=_ON_KILL[chain.on_kill],
        idle_timeout_ns=chain.idle_timeout_ns,
        max_fwps=chain.max_fwps,
        domain=domain,
        stages=stages,
        entries=[(ports.index(e.port), e.stage, e.direction, e.in_port) for e in graph.entries],
    )


def _routes(
    onward: Sequence[Destination], backward: Sequence[Destination], direction: int, ports: Sequence[str]
) -> _RouteRow:
    """The kernel's row for one direction: back, drop, then the out ports."""
    back = _route(backward[0], 1 - direction, ports) if backward else (_NONE, 0, 0, 0)
    return [back, (_DROP, 0, 0, 0), *(_route(destination, direction, ports) for destination in onward)]


def _route(destination: Destination, direction: int, ports: Sequence[str]) -> tuple[int, int, int, int]:
    if destination[0] == "port":
        return (_PORT, ports.index(destination[1]), direction, 0)
    return (_STAGE, destination[1], direction, destination[2])


def _domains(graphs: Sequence[ChainGraph]) -> list[int]:
    """Numbers chains so that those which share a port, directly or through others, share a number and their flows."""
    groups: list[tuple[set[str], list[int]]] = []
    for number, graph in enumerate(graphs):
        ports, members = {entry.port for entry in graph.entries}, [number]
        for group in [g for g in groups if g[0] & ports]:
            groups.remove(group)
            ports |= group[0]
            members += group[1]
        groups.append((ports, members))
    domain_of = {number: domain for domain, (_, members) in enumerate(groups) for number in members}
    return [domain_of[number] for number in range(len(graphs))]


def _native_rule(rule: RuleSettings, chains: Sequence[str], ports: Sequence[str]) -> _native.Rule:
    match = rule.match
    fields: dict[str, Any] = {
        "action": -1 if rule.chain is None else chains.index(rule.chain),
        "ip": match.ip,
        "ip_version": match.ip_version,
        "ethertype": match.ethertype,
        "protocol": match.protocol,
        "source": _prefix(match.src),
        "destination": _prefix(match.dst),
        "source_ports": match.src_ports,
        "destination_ports": match.dst_ports,
        "any_port": match.any_port,
        "vlan": match.vlan,
        "port": None if match.port is None else ports.index(match.port),
    }
    return _native.Rule(**fields)


def _prefix(network: Any) -> tuple[bytes, int] | None:
    """A prefix over 16 bytes; IPv4 as the kernel keeps it, ::ffff:a.b.c.d."""
    if network is None:
        return None
    packed = network.network_address.packed
    if network.version == 4:
        return (bytes(10) + b"\xff\xff" + packed, 96 + network.prefixlen)
    return (packed, network.prefixlen)
