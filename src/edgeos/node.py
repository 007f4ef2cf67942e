"""A node: ports, templates, chains and rules made into a running data plane.

The kernel moves the messages on a thread of its own; this module sets it up, starts and stops it, and reads counters.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Literal, Self, TypeVar

from edgeos import _native
from edgeos.chain import Chain
from edgeos.checkpoint import Checkpoint, Layout
from edgeos.code_cache import CodeCache
from edgeos.controller import Controller, Rule
from edgeos.descriptors import require_descriptors
from edgeos.errors import EdgeosError, LimitError
from edgeos.guest import load_guests
from edgeos.handlers import HandlerAnswer, address_bytes, check_request, counter_answers, guest_answer
from edgeos.installed import wasmtime_library
from edgeos.manifest import check_settings
from edgeos.match import Match, parse_match
from edgeos.port import (
    Port,
    locked_bytes,
    open_native_port,
    open_port_settings,
    packet_memory,
    port_kind,
    split_endpoint,
)
from edgeos.restart import what_must_restart
from edgeos.settings import (
    ChainSettings,
    Manifest,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    TenantSettings,
    UpstreamSettings,
)
from edgeos.statistics import ClientStatistics, NodeStatistics, client_statistics, node_statistics
from edgeos.system_limits import fwps_of, is_compact, require_system
from edgeos.template import Template
from edgeos.unmatched import DROP, Answer, Asker, Asking, Callback, load_asking

KEPT_MAX = 24 * 1024
"""Bytes at the start of an FWP's memory that recycling clears and keeps, at most; what lies behind is given back."""

_WAIT = {"adaptive": 0, "spin": 1, "block": 2}


_Record = TypeVar("_Record", TemplateSettings, ChainSettings, TenantSettings)


class Node:
    """One node. A context manager: leaving it stops the data plane and closes the ports.

        with Node() as node:
            node.add_port(PortSettings(name="lan", kind="pcap", read=Path("in.pcap")))
            node.add_port(PortSettings(name="wan", kind="pcap", write=Path("out.pcap")))
            node.add_template(TemplateSettings(name="fw", appliance="firewall", config=b"allow ip"))
            node.add_chain(ChainSettings(name="edge", path=("lan", "fw", "wan")))
            node.add_rule("ip", chain="edge")
            print(node.run())

    Ports and upstreams are added before the first `start`, `run` or `run_once`, which check everything. Templates,
    chains and rules can be added and removed while the node runs too: each call takes effect as a whole, between two
    iterations of the data plane, or raises and changes nothing. `reconfigure` changes many at once.
    """

    def __init__(self, settings: NodeSettings | None = None, *, progress: Callable[[str], None] | None = None) -> None:
        self._manifest = Manifest(node=settings or NodeSettings())
        self._native_ports: dict[str, _native.Port] = {}
        self._port_names: list[str] = []  # by number; "" once it is gone
        self._port_kinds: dict[str, str] = {}
        self._progress = progress
        self._guests: dict[str, Checkpoint] = {}
        self._worker: _native.Worker | None = None
        self._controller: Controller | None = None
        self._has_ports = False
        self._rules: tuple[Rule, ...] = ()
        self._rule_numbers = itertools.count(1)
        self._closed: NodeStatistics | None = None
        self._asking: Asking | None = None
        self._asker: Asker | None = None
        self._changing = threading.RLock()  # what the asker needs may change the node too

    @classmethod
    def from_manifest(cls, manifest: Manifest, *, progress: Callable[[str], None] | None = None) -> Self:
        """A node that runs what a manifest says; `edgeos.load_manifest` reads one from a file."""
        node = cls(manifest.node, progress=progress)
        node._manifest = manifest
        node._rules = node._numbered(manifest.rules)
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
            settings = open_port_settings(port)
            self._native_ports[port.name] = port
        self._manifest = replace(self._manifest, ports=(*self._manifest.ports, settings))

    def add_upstream(self, upstream: UpstreamSettings) -> None:
        """Adds a service that templates may be granted to connect to."""
        self._require_setup()
        self._manifest = replace(self._manifest, upstreams=(*self._manifest.upstreams, upstream))

    def add_template(self, template: TemplateSettings | Template) -> None:
        """Adds a template; given its settings, the guest is built and initialised when the node starts, or now."""
        settings = template.settings if isinstance(template, Template) else template
        given = {settings.name: template.checkpoint} if isinstance(template, Template) else {}
        self._change(replace(self._manifest, templates=(*self._manifest.templates, settings)), guests=given)

    def remove_template(self, template: str) -> None:
        """Takes a template away that no chain names any more; KeyError when there is none of that name."""
        self._change(replace(self._manifest, templates=_without(self._manifest.templates, template)))

    def add_chain(self, chain: ChainSettings) -> Chain:
        """Adds a chain of ports and templates that the node has, or will have when it starts."""
        self._change(replace(self._manifest, chains=(*self._manifest.chains, chain)))
        return Chain(self, chain)

    def remove_chain(self, chain: str) -> None:
        """Takes a chain away that no rule names any more. Its live clients stay in it until they leave by themselves.

        KeyError when there is no such chain.
        """
        self._change(replace(self._manifest, chains=_without(self._manifest.chains, chain)))

    def add_tenant(self, tenant: TenantSettings) -> None:
        """Adds a tenant, whose quotas the clients of rules that name it share."""
        self._change(replace(self._manifest, tenants=(*self._manifest.tenants, tenant)))

    def change_tenant(self, tenant: TenantSettings) -> None:
        """Gives a tenant other quotas; its clients stay, also those beyond. KeyError when there is none of its name."""
        others = _without(self._manifest.tenants, tenant.name)
        self._change(replace(self._manifest, tenants=(*others, tenant)))

    def remove_tenant(self, tenant: str) -> None:
        """Takes a tenant away that no rule names any more. Its clients stay under its quotas until they leave.

        KeyError when there is none of that name.
        """
        self._change(replace(self._manifest, tenants=_without(self._manifest.tenants, tenant)))

    def add_rule(
        self,
        match: str | Match,
        *,
        chain: str | None = None,
        drop: bool = False,
        pass_ports: tuple[str, str] | None = None,
        priority: int = 0,
        isolate: Literal["shared", "client", "connection", "flow"] | None = None,
        max_clients: int = 0,
        new_clients: int = 0,
        tenant: str | None = None,
    ) -> Rule:
        """Adds a rule behind those of its priority: flows that match go through the chain, are dropped, or passed on.

        The higher priority is asked first. `pass_ports` hands messages of the two ports, the clients' side first, from
        one to the other unchanged. `isolate` overrides the chain's; `max_clients` (0: any number) bounds how many
        clients the rule lets in at once, `new_clients` how many in a second. `tenant` names whose quotas they share.
        Flows that are there stay where they are.
        """
        parsed = parse_match(match) if isinstance(match, str) else match
        settings = RuleSettings(
            match=parsed,
            chain=chain,
            drop=drop,
            pass_ports=pass_ports or (),
            priority=priority,
            isolate=isolate,
            max_clients=max_clients,
            new_clients=new_clients,
            tenant=tenant,
        )
        rule = Rule(next(self._rule_numbers), settings)
        self._change(replace(self._manifest, rules=(*self._manifest.rules, settings)), rules=(*self._rules, rule))
        return rule

    def remove_rule(self, rule: Rule) -> None:
        """Takes a rule away; it goes on holding for the clients that it let in. KeyError when it is not there."""
        if rule not in self._rules:
            raise KeyError(rule.number)
        rules = tuple(other for other in self._rules if other.number != rule.number)
        self._change(replace(self._manifest, rules=tuple(other.settings for other in rules)), rules=rules)

    def on_unmatched(
        self,
        callback: Callback,
        *,
        deadline: float = 0.1,
        default: Answer = DROP,
        keep: float = 60.0,
        max_clients: int = 65536,
        max_waiting: int = 1024,
    ) -> None:
        """Asks a callback about each client that no rule matches, once, on a thread of its own.

        It returns an `Answer`, the name of a chain, or None for the default, within `deadline` seconds; else, and when
        it raises, the default holds. The decision is kept until nothing was heard of the client for `keep` seconds, or
        chains or rules change while it has no FWP. Up to 4 of the client's messages wait for it, 256 in all; a
        connection waits whole. Of `max_clients` known clients `max_waiting` may wait for an answer; others are dropped.
        """
        if not 0 < deadline <= 3600 or not 0 < keep <= 86_400 or min(max_clients, max_waiting) < 1:
            raise EdgeosError(
                f"found deadline={deadline}, keep={keep}, max_clients={max_clients}, max_waiting={max_waiting}; "
                "allowed: seconds up to an hour and up to a day, and at least 1 client"
            )
        self._ask_by(
            Asking(
                callback=callback,
                deadline=deadline,
                default=default,
                keep=keep,
                max_clients=max_clients,
                max_waiting=max_waiting,
            )
        )

    def _ask_by(self, asking: Asking) -> None:
        if self._asker is not None and self._closed is None:
            self._asker.change(asking)
        self._asking = asking
        if self._has_ports and self._closed is None:
            self._start_asker(*self._running())

    def _start_asker(self, worker: _native.Worker, controller: Controller) -> None:
        if self._asking is not None and self._asker is None:
            names = [port.name for port in self._manifest.ports]
            self._asker = Asker(worker, self._asking, names, lambda answer: self._rule_of_answer(controller, answer))

    def _rule_of_answer(self, controller: Controller, answer: Answer) -> _native.Rule:
        with self._changing:
            return controller.rule_of_answer(answer, self._manifest, self._rules, self._guests)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which they are asked."""
        return tuple(sorted(self._rules, key=lambda rule: -rule.settings.priority))

    @property
    def manifest(self) -> Manifest:
        """What the node runs, or will run when it starts."""
        return self._manifest

    def reconfigure(self, manifest: Manifest) -> None:
        """Makes the node run another manifest: what is the same keeps running, and live clients stay where they are.

        Listeners come and go with it: who is connected to one that goes stays. Other ports, upstreams and `[node]`, but
        its two timeouts, cannot change while a node runs; `[unmatched]` cannot go. Raises ManifestError, GuestError,
        LimitError, PortError or EdgeosError, and then nothing has changed.
        """
        if self._worker is not None and (
            changed := what_must_restart(self._manifest, manifest, sockets_stay=_has_sockets(manifest))
        ):
            raise EdgeosError(f"{changed} cannot change while the node runs: restart it")
        asking = self._changed_asking(manifest)
        if self._has_ports and self._closed is None and set(manifest.ports) != set(self._manifest.ports):
            self._change_listeners(manifest)
        else:
            ports = [port.name for port in manifest.ports] if not self._has_ports else None
            self._change(manifest, rules=self._numbered(manifest.rules), ports=ports)
        if asking is not None:
            self._ask_by(asking)

    def _change_listeners(self, manifest: Manifest) -> None:
        """Opens those that are new or other than before, runs the manifest, and lets nobody in by those that went."""
        before, after = ({port.name: port for port in m.ports} for m in (self._manifest, manifest))
        check_settings(manifest)
        require_descriptors(manifest)
        new = {name: open_native_port(port) for name, port in after.items() if before.get(name) != port}
        with self._changing:
            worker = self._running()[0]
            gone = [number for number, name in enumerate(self._port_names) if name and after.get(name) != before[name]]
            names = ["" if number in gone else name for number, name in enumerate(self._port_names)]
            kinds = {name: port_kind(port) for name, port in new.items()}
            self._port_kinds = kinds | self._port_kinds  # statistics have them from now on, whatever becomes of them
            added: list[int] = []
            try:
                for port in new.values():
                    added.append(_add_listener(worker, port))
                self._change(manifest, rules=self._numbered(manifest.rules), ports=[*names, *new])
            except BaseException:
                self._port_names += [""] * len(added)
                worker.change_listeners(opened=[], closed=added)
                raise
            worker.change_listeners(opened=added, closed=gone)
            self._port_names = [*names, *new]
            self._native_ports = {name: new.get(name) or self._native_ports[name] for name in after}
            self._port_kinds |= kinds
            if self._asker is not None:
                self._asker.name_ports(self._port_names)

    def _changed_asking(self, manifest: Manifest) -> Asking | None:
        """What a running node must ask by from now on, None if that is as before."""
        if self._worker is None or manifest.unmatched is None or manifest.unmatched == self._manifest.unmatched:
            return None
        check_settings(manifest)
        return load_asking(manifest, manifest.unmatched)

    def _numbered(self, rules: Sequence[RuleSettings]) -> tuple[Rule, ...]:
        """Rules with the numbers of those there are with the same settings, and new numbers for the others."""
        known = list(self._rules)
        numbered = []
        for settings in rules:
            same = next((rule for rule in known if rule.settings == settings), None)
            if same is not None:
                known.remove(same)
            numbered.append(same or Rule(next(self._rule_numbers), settings))
        return tuple(numbered)

    def _change(
        self,
        manifest: Manifest,
        *,
        rules: tuple[Rule, ...] | None = None,
        guests: Mapping[str, Checkpoint] | None = None,
        ports: Sequence[str] | None = None,
    ) -> None:
        with self._changing:
            if self._closed is not None:
                raise EdgeosError("the node has been stopped")
            rules = self._rules if rules is None else rules
            names = {template.name for template in manifest.templates}
            known = {name: guest for name, guest in {**self._guests, **(guests or {})}.items() if name in names}
            if self._controller is not None:
                self._controller.apply(manifest, rules, known, ports)
            self._manifest, self._rules, self._guests = manifest, rules, known
            if self._asker is not None:
                self._asker.follow()

    def prepare(self) -> None:
        """Builds the guests and makes room for FWPs, all but the ports. Raises as `start`, which does it otherwise."""
        self._made()

    def take_sockets(self, descriptors: Mapping[str, int]) -> None:
        """Gives ports, by name, sockets that somebody else has made and keeps, instead of ones of their own."""
        if self._has_ports or self._closed is not None:
            raise EdgeosError("ports get sockets before the node starts")
        ports = (replace(port, fd=descriptors.get(port.name, port.fd)) for port in self._manifest.ports)
        self._manifest = replace(self._manifest, ports=tuple(ports))

    def drain(self) -> None:
        """Lets no new clients in, at listeners and at ports for packets; those that are there stay until they leave."""
        if self._closed is None:
            self._prepared().drain()

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
        snapshot = self._prepared().snapshot(guest_counters)
        statistics = node_statistics(snapshot, self._port_kinds)
        problem = "" if self._asker is None else self._asker.problem
        return replace(statistics, unmatched=replace(statistics.unmatched, problem=problem))

    def clients(self, chain: str) -> tuple[ClientStatistics, ...]:
        """The live clients of a chain with their guests' counters. KeyError when there is no such chain."""
        number = self._chain_number(chain)
        worker, controller = self._running()
        return tuple(client_statistics(raw, controller.stages(chain)) for raw in worker.clients(number))

    def read_handler(self, chain: str, stage: str, client: str | None, name: str) -> tuple[HandlerAnswer, ...]:
        """Reads a named value of the guest at a stage: of one client (its address), or of all live ones with None.

        Counters are read as they are; other names are put to the guests, between two bursts and under their budget.
        KeyError when there is no such chain or stage; EdgeosError when the guest has nothing of this name.
        """
        number, index, counters = self._stage(chain, stage)
        check_request(name, b"")
        if name in counters:
            return tuple(counter_answers(self.clients(chain), stage, name, client))
        return self._access(number, index, client, name, None)

    def write_handler(
        self, chain: str, stage: str, client: str | None, name: str, value: bytes | str
    ) -> tuple[HandlerAnswer, ...]:
        """Writes a named value of the guest at a stage: of one client (its address), or of all that live with None.

        Clients that come later start from the checkpoint and know nothing of it. Errors as `read_handler`; what one
        client's guest refuses stands in its answer's `problem`.
        """
        number, index, _ = self._stage(chain, stage)
        data = value.encode() if isinstance(value, str) else value
        check_request(name, data)
        return self._access(number, index, client, name, data)

    def _stage(self, chain: str, stage: str) -> tuple[int, int, list[str]]:
        """The kernel's numbers of a chain and a stage, and the names of its counters."""
        number = self._chain_number(chain)
        stages = self._running()[1].stages(chain)
        names = [name for name, _ in stages]
        if stage not in names:
            raise KeyError(stage)
        return number, names.index(stage), stages[names.index(stage)][1]

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
        if self._worker is not None and self._closed is None:
            self._worker.close_chain(self._chain_number(chain))
        elif all(settings.name != chain for settings in self._manifest.chains):
            raise KeyError(chain)

    def stop_listening(self) -> None:
        """Listeners let nobody in any more; who is connected stays, until he leaves or the node stops."""
        if self._closed is None:
            self._prepared().stop_listening()

    def set_fake_time(self, ns: int) -> None:
        """Sets the clock that timeouts run by, nanoseconds; 0 returns to real time. For tests."""
        self._prepared().set_fake_time(ns)

    def stop(self) -> NodeStatistics:
        """Stops the data plane; what is still in flight is dropped and counted. Returns the final statistics."""
        if self._closed is not None:
            return self._closed
        worker = self._prepared()
        with self._changing:  # an answer about an unmatched client may add a chain, which both have or neither
            before = self.statistics(guest_counters=False)
            if self._asker is not None:
                self._asker.stop()
            worker.stop()
            after = self.statistics()
        # Stopping unbinds every FWP; how many were live is what the user wants to know.
        chains = tuple(replace(chain, live=live.live) for chain, live in zip(after.chains, before.chains, strict=True))
        tenants = tuple(
            replace(tenant, clients=live.clients, fwps=live.fwps, memory=live.memory)
            for tenant, live in zip(after.tenants, before.tenants, strict=True)
        )
        self._closed = replace(after, chains=chains, tenants=tenants)
        return self._closed

    def close(self) -> None:
        """Stops and lets go of everything. Statistics stay readable."""
        if self._has_ports and self._closed is None:
            self.stop()
        self._worker = self._controller = None
        self._has_ports = False
        self._native_ports.clear()

    def _chain_number(self, chain: str) -> int:
        if all(settings.name != chain for settings in self._manifest.chains):
            raise KeyError(chain)
        return self._running()[1].chain_number(chain)

    # ---- Set-up ----

    def _require_setup(self) -> None:
        if self._worker is not None or self._closed is not None:
            raise EdgeosError("ports and upstreams are added before the node starts")

    def _prepared(self) -> _native.Worker:
        return self._running()[0]

    def _running(self) -> tuple[_native.Worker, Controller]:
        worker, controller = self._made()
        if not self._has_ports:
            self._open_ports(worker)
            self._start_asker(worker, controller)
        return worker, controller

    def _made(self) -> tuple[_native.Worker, Controller]:
        if self._closed is not None:
            raise EdgeosError("the node has been stopped")
        if self._worker is None or self._controller is None:
            self._worker, self._controller = self._make_worker()
        return self._worker, self._controller

    def _make_worker(self) -> tuple[_native.Worker, Controller]:
        manifest = self._manifest
        check_settings(manifest)
        if manifest.node.workers > 1:
            raise EdgeosError("a Node is one worker; `edgeos up` runs several")
        if manifest.unmatched is not None and self._asking is None:
            self._asking = load_asking(manifest, manifest.unmatched)
        require_system(manifest, locked_bytes=locked_bytes(manifest.ports))
        guests = load_guests(manifest.templates, self._guests, CodeCache(), self._progress)
        engine = engine_settings(manifest, guests)
        worker = make_worker(engine, manifest.node)
        for upstream in manifest.upstreams:
            worker.add_upstream(*split_endpoint(upstream.address))
        controller = Controller(worker, engine, [port.name for port in manifest.ports], self._progress)
        controller.apply(manifest, self._rules, guests)
        return worker, controller

    def _open_ports(self, worker: _native.Worker) -> None:
        ports = self._manifest.ports
        memory = packet_memory([port for port in ports if port.name not in self._native_ports])
        try:
            for port in ports:
                if port.name not in self._native_ports:
                    self._native_ports[port.name] = open_native_port(port, memory)
            for port in ports:
                worker.add_port(self._native_ports[port.name])
            self._port_names = [port.name for port in ports]
            self._port_kinds = {name: port_kind(port) for name, port in self._native_ports.items()}
        except BaseException:
            self._worker = self._controller = None
            raise
        self._has_ports = True


def _add_listener(worker: _native.Worker, port: Port) -> int:
    try:
        return worker.add_listener(port)
    except RuntimeError as error:
        raise LimitError(str(error)) from None


def _has_sockets(manifest: Manifest) -> bool:
    """True if somebody else keeps the ports' sockets."""
    return any(port.fd is not None for port in manifest.ports)


def _without(records: tuple[_Record, ...], name: str) -> tuple[_Record, ...]:
    if all(record.name != name for record in records):
        raise KeyError(name)
    return tuple(record for record in records if record.name != name)


def engine_settings(manifest: Manifest, guests: Mapping[str, Checkpoint]) -> _native.EngineSettings:
    """The pool that all chains at their limits need, for the guests that there are at the start.

    Memories lie as close together as these guests allow, so that many share a page table. Where room is kept for FWPs
    of templates to come, those may have as much memory as the templates that there are.
    """
    spared = [template.memory for template in manifest.templates] if manifest.node.spare_fwps else []
    used = [guest.memory_max for guest in guests.values()]
    memory = max([65536, manifest.node.spare_memory, *spared, *used])
    return make_engine_settings(fwps_of(manifest), memory, guests.values(), compact=is_compact(manifest))


def make_engine_settings(
    fwps: int, memory_max: int, guests: Iterable[Checkpoint], *, compact: bool
) -> _native.EngineSettings:
    """Settings of an engine for so many FWPs of these guests, with memories of up to `memory_max` bytes.

    Recycling keeps as much of a memory resident as the guests' first messages touch, so that an FWP holds no more in
    its second life than in its first. It clears that part whole, which is why there is a limit.
    """
    kept = max((_hot_bytes(guest.layout) for guest in guests), default=KEPT_MAX)
    return _native.EngineSettings(
        fwps=fwps,
        memory_max=memory_max,
        compact=compact,
        copy_on_write=not compact,
        keep_resident=kept,
    )


def _hot_bytes(layout: Layout) -> int:
    return _native.hot_bytes(
        slot_size=layout.slot_size,
        messages=layout.messages,
        verdicts=layout.verdicts,
        data=layout.data,
        stack=layout.stack_pointer,
        counters=[counter.address for counter in layout.counters],
        most=KEPT_MAX,
    )


def make_worker(engine: _native.EngineSettings, settings: NodeSettings) -> _native.Worker:
    """A worker with nothing in it yet."""
    _native.open_wasmtime(str(wasmtime_library()))
    try:
        return _native.Worker(
            engine,
            dedicated_mover=settings.mover == "dedicated",
            wait=_WAIT[settings.wait],
            max_flows=settings.max_flows,
        )
    except RuntimeError as error:
        raise LimitError(str(error)) from None
