"""The controller: brings what a worker runs in line with a manifest, at the start and while messages pass.

It works out what differs, loads the guests that are new, and hands the kernel one change, which takes effect between
two iterations or not at all. What did not change keeps running. Live clients of a chain that went stay in it until they
leave; a rule that went holds on for the clients it let in. Messages that a rule passed on unchanged have no client
behind them: they meet the rules anew after every change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeos import _native
from edgeos.checkpoint import Checkpoint
from edgeos.click.place import grants
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError, GuestError, LimitError
from edgeos.graph import ChainGraph, Destination, Entry, build_graph
from edgeos.guest import WASMTIME_VERSION, check_kept, load_guests
from edgeos.manifest import check_settings
from edgeos.match import parse_match
from edgeos.native_rule import native_rule
from edgeos.settings import ChainSettings, Manifest, RuleSettings, TemplateSettings, TenantSettings
from edgeos.unmatched import Answer

_ISOLATION = {"shared": 0, "client": 1, "connection": 2, "flow": 2}
_WHEN_FULL = {"refuse": 0, "evict": 1}
_ON_KILL = {"restart": 0, "block": 1}
_NONE, _DROP, _STAGE, _PORT = 0, 1, 2, 3
_DROP_ACTION = -1
_NEW_CHAIN = -1000  # and below, as in rule.hpp
_ANY = parse_match("any")

_RouteRow = list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class Rule:
    """A rule of a node; `Node.remove_rule` takes it away again. `number` is the node's own, never given twice."""

    number: int
    settings: RuleSettings


@dataclass(frozen=True)
class _Template:
    settings: TemplateSettings
    guest: Checkpoint
    number: int  # in the kernel


@dataclass(frozen=True)
class _Chain:
    """A chain as it runs; without settings it is a wire, by which rules pass messages on unchanged."""

    settings: ChainSettings | None
    graph: ChainGraph
    templates: tuple[int, ...]
    ports: tuple[int, ...]  # numbers of those that its graph names
    number: int


@dataclass(frozen=True)
class _Rule:
    settings: RuleSettings
    chain: int
    isolation: int
    port: int | None  # number of the one that it asks for
    order: int
    number: int


class Controller:
    """Of one worker. `ports` are the names of its ports by number, "" for those that are gone. Not thread-safe."""

    def __init__(
        self,
        worker: _native.Worker,
        engine: _native.EngineSettings,
        ports: Sequence[str],
        progress: Callable[[str], None] | None,
    ) -> None:
        self._worker = worker
        self._engine = engine
        self._ports = list(ports)
        self._progress = progress
        self._templates: dict[str, _Template] = {}
        self._chains: dict[str, _Chain] = {}
        self._rules: dict[int, _Rule] = {}
        self._tenants: dict[str, TenantSettings] = {}
        self._wires: set[tuple[str, str]] = set()  # that answers about unmatched clients ask for
        self._domains: dict[str, int] = {}
        self._rule_numbers = itertools.count(1)

    def chain_number(self, name: str) -> int:
        """The kernel's number of a chain; KeyError when there is none of that name."""
        return self._chains[name].number

    def stages(self, chain: str) -> list[tuple[str, list[str]]]:
        """The stages of a chain, each with the names of its guest's counters."""
        return [
            (stage.name, [counter.name for counter in self._templates[stage.template].guest.layout.counters])
            for stage in self._chains[chain].graph.stages
        ]

    def apply(
        self,
        manifest: Manifest,
        rules: Sequence[Rule],
        given: Mapping[str, Checkpoint],
        ports: Sequence[str] | None = None,
    ) -> None:
        """Makes the worker run the manifest; `rules` are its rules with their numbers, `given` guests already loaded.

        `ports` are names by number as they are from now on. Raises ManifestError, GuestError or LimitError, and then
        nothing has changed.
        """
        before = self._ports
        try:
            self._ports = before if ports is None else list(ports)
            self._apply(manifest, rules, given)
        except BaseException:
            self._ports = before
            raise

    def _apply(self, manifest: Manifest, rules: Sequence[Rule], given: Mapping[str, Checkpoint]) -> None:
        check_settings(manifest)
        cache = CodeCache()
        guests = load_guests(manifest.templates, given, cache, self._progress)
        check_kept(manifest, guests)
        templates = {
            t.name: self._templates[t.name]
            for t in manifest.templates
            if t.name in self._templates
            and self._templates[t.name].settings == t
            and self._templates[t.name].guest == guests[t.name]
        }
        added: list[int] = []
        try:
            for settings in manifest.templates:
                if settings.name not in templates:
                    number = self._add_template(settings, guests[settings.name], manifest, cache)
                    added.append(number)
                    templates[settings.name] = _Template(settings, guests[settings.name], number)
            self._apply_chains(manifest, rules, templates)
        except BaseException:
            if added:
                self._change(retired_templates=added)
            raise

    def rule_of_answer(
        self, answer: Answer, manifest: Manifest, rules: Sequence[Rule], given: Mapping[str, Checkpoint]
    ) -> _native.Rule:
        """The kernel's rule of what was answered about a client; the rest is as for `apply`. Raises EdgeosError."""
        rule = RuleSettings(
            match=_ANY,
            chain=answer.chain,
            drop=answer.chain is None and answer.pass_ports is None,
            pass_ports=answer.pass_ports or (),
            isolate=answer.isolate,
            tenant=answer.tenant,
        )
        check_settings(replace(manifest, rules=(rule,), unmatched=None))
        if answer.pass_ports and _wire(answer.pass_ports) not in self._chains:
            self._wires.add(answer.pass_ports)
            self.apply(manifest, rules, given)
        name = _wire(answer.pass_ports) if answer.pass_ports else answer.chain
        isolations = {chain.name: chain.isolate for chain in manifest.chains}
        return native_rule(
            _ANY,
            action=_DROP_ACTION if name is None else self._chains[name].number,
            isolation=_ISOLATION[answer.isolate or isolations.get(answer.chain or "", "shared")],
            tenant=answer.tenant or "",
        )

    def _apply_chains(self, manifest: Manifest, rules: Sequence[Rule], templates: dict[str, _Template]) -> None:
        wanted = self._wanted_chains(manifest, templates)
        kept = {
            name: chain
            for name, chain in self._chains.items()
            if name in wanted
            and (chain.settings, chain.graph, chain.templates, chain.ports)
            == (wanted[name].settings, wanted[name].graph, wanted[name].templates, wanted[name].ports)
        }
        new = [name for name in wanted if name not in kept]
        domains = self._domains_with([chain.graph for chain in wanted.values()])
        places = {name: chain.number for name, chain in kept.items()}
        places |= {name: _NEW_CHAIN - index for index, name in enumerate(new)}
        new_rules, orders, running = self._plan_rules(manifest, rules, places)
        numbers = self._change(
            chains=[self._native_chain(name, wanted[name], domains) for name in new],
            retired_chains=[chain.number for name, chain in self._chains.items() if name not in kept],
            retired_templates=[t.number for name, t in self._templates.items() if templates.get(name) != t],
            rules=new_rules,
            removed_rules=[
                rule.number for number, rule in self._rules.items() if running.get(number, rule).number != rule.number
            ]
            + [rule.number for number, rule in self._rules.items() if number not in running],
            rule_orders=orders,
            tenants=[native_tenant(t) for t in manifest.tenants if self._tenants.get(t.name) != t],
            removed_tenants=[name for name in self._tenants if all(t.name != name for t in manifest.tenants)],
        )
        given = dict(zip(new, numbers, strict=True))
        self._tenants = {tenant.name: tenant for tenant in manifest.tenants}
        self._templates = templates
        self._domains = domains
        self._chains = {name: kept.get(name) or replace(chain, number=given[name]) for name, chain in wanted.items()}
        self._rules = {number: replace(r, chain=self._settled(r.chain, numbers)) for number, r in running.items()}

    @staticmethod
    def _settled(action: int, numbers: Sequence[int]) -> int:
        return numbers[_NEW_CHAIN - action] if action <= _NEW_CHAIN else action

    def _wanted_chains(self, manifest: Manifest, templates: Mapping[str, _Template]) -> dict[str, _Chain]:
        """The chains that are to run, their numbers not given yet; wires among them."""
        chains = {}
        for settings in manifest.chains:
            graph = build_graph(settings, self._ports, list(templates))
            numbers = tuple(templates[stage.template].number for stage in graph.stages)
            chains[settings.name] = self._chain(settings, graph, numbers)
        for ports in (*(rule.pass_ports for rule in manifest.rules if rule.pass_ports), *self._wires):
            chains[_wire(ports)] = self._chain(None, _wire_graph(*ports), ())
        return chains

    def _chain(self, settings: ChainSettings | None, graph: ChainGraph, templates: tuple[int, ...]) -> _Chain:
        return _Chain(settings, graph, templates, tuple(self._ports.index(entry.port) for entry in graph.entries), -1)

    def _plan_rules(
        self, manifest: Manifest, rules: Sequence[Rule], places: Mapping[str, int]
    ) -> tuple[list[_native.Rule], list[tuple[int, int]], dict[int, _Rule]]:
        """The kernel's new rules, new orders of those that stay, and all rules as they will be."""
        isolations = {chain.name: chain.isolate for chain in manifest.chains}
        new, orders, running = [], [], {}
        for order, rule in enumerate(rules):
            settings = rule.settings
            target = _wire(settings.pass_ports) if settings.pass_ports else settings.chain
            action = _DROP_ACTION if target is None else places[target]
            isolate = settings.isolate or isolations.get(settings.chain or "", "shared")
            port = None if settings.match.port is None else self._ports.index(settings.match.port)
            wanted = _Rule(settings, action, _ISOLATION[isolate], port, order, -1)
            known = self._rules.get(rule.number)
            if known and replace(known, order=order, number=-1) == wanted:
                orders.append((known.number, order))
                number = known.number
            else:
                number = next(self._rule_numbers)
                new.append(_native_rule(number, wanted, self._ports))
            running[rule.number] = replace(wanted, number=number)
        return new, orders, running

    def _domains_with(self, graphs: Sequence[ChainGraph]) -> dict[str, int]:
        """Numbers ports so that those which chains join, directly or through others, share a number and their flows.

        Ports keep their numbers while the node runs, for the sake of the flows that are there.
        """
        groups: list[set[str]] = []
        for graph in graphs:
            ports = {entry.port for entry in graph.entries}
            for group in [g for g in groups if g & ports]:
                groups.remove(group)
                ports |= group
            groups.append(ports)
        domains = dict(self._domains)
        fresh = itertools.count(max(domains.values(), default=-1) + 1)
        for group in groups:
            numbers = {domains[port] for port in group if port in domains}
            if len(numbers) > 1:
                raise EdgeosError(
                    f"the ports {', '.join(sorted(group))} had flows of their own so far, and a chain may join them "
                    "only before the node starts: restart it"
                )
            number = numbers.pop() if numbers else next(fresh)
            domains |= dict.fromkeys(group, number)
        return domains

    def _native_chain(self, name: str, chain: _Chain, domains: Mapping[str, int]) -> _native.ChainSpec:
        settings = chain.settings or ChainSettings(name=name)
        stages = [
            (
                stage.name,
                template,
                _routes(stage.outs[0], stage.outs[1], 0, self._ports),
                _routes(stage.outs[1], stage.outs[0], 1, self._ports),
            )
            for stage, template in zip(chain.graph.stages, chain.templates, strict=True)
        ]
        entries = [(self._ports.index(e.port), e.stage, e.direction, e.in_port) for e in chain.graph.entries]
        if chain.settings is None:  # a wire's entries name the port of exit in the place of a stage
            entries = [(port, entries[1 - index][0], way, 0) for index, (port, _, way, _) in enumerate(entries)]
        return _native.ChainSpec(
            name,
            when_full=_WHEN_FULL[settings.when_full],
            on_kill=_ON_KILL[settings.on_kill],
            idle_timeout_ns=settings.idle_timeout_ns,
            keep=settings.keep,
            keep_memory=settings.keep_memory,
            keep_timeout_ns=settings.keep_timeout_ns,
            max_fwps=settings.max_fwps,
            new_clients=settings.new_clients,
            domain=domains[chain.graph.entries[0].port],
            stages=stages,
            entries=entries,
        )

    def _add_template(self, template: TemplateSettings, guest: Checkpoint, manifest: Manifest, cache: CodeCache) -> int:
        key: list[bytes | str] = ["native", WASMTIME_VERSION, self._engine.code_key, guest.wasm]
        layout = guest.layout
        upstreams = [upstream.name for upstream in manifest.upstreams]
        grant = grants(template)
        if guest.memory_max > self._engine.memory_max:
            raise LimitError(
                f"template.{template.name}: memory is {guest.memory_max} bytes, and the node was started for at most "
                f"{self._engine.memory_max}; set node.spare_memory and restart"
            )
        try:
            return self._worker.add_template(
                template.name,
                cache.get(key, lambda: self._worker.compile(guest.wasm)),
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
                ready_max=template.ready_max,
                timer=grant.timer,
                clock=grant.clock,
                random=grant.random,
                connects=[upstreams.index(name) for name in grant.connect],
            )
        except RuntimeError as error:
            if "room for" in str(error):
                raise _no_room(error) from None
            raise GuestError(f"template.{template.name}: {error}") from None

    def _change(self, **parts: Any) -> list[int]:
        names = (
            "chains",
            "retired_chains",
            "retired_templates",
            "rules",
            "removed_rules",
            "rule_orders",
            "tenants",
            "removed_tenants",
        )
        try:
            return self._worker.apply(**{name: parts.get(name, []) for name in names})
        except RuntimeError as error:
            raise _no_room(error) from None


def native_tenant(tenant: TenantSettings) -> _native.TenantSpec:
    """A tenant's quotas as the kernel takes them."""
    return _native.TenantSpec(
        tenant.name,
        cpu_ns=tenant.cpu,
        memory=tenant.memory,
        fwps=tenant.max_fwps,
        clients=tenant.max_clients,
        copied_bytes=tenant.copy_rate,
        messages=tenant.message_rate,
        new_clients=tenant.new_clients,
    )


def _no_room(error: RuntimeError) -> LimitError:
    return LimitError(f"the change needs {error}; set node.spare_fwps and restart, or remove chains first")


def _wire(ports: Sequence[str]) -> str:
    """The name of the wire that messages are passed on by; no chain can have it."""
    return f"pass {' '.join(ports)}"


def _wire_graph(near: str, far: str) -> ChainGraph:
    ends = (Entry(port=port, stage=0, direction=way, in_port=0) for way, port in enumerate((near, far)))
    return ChainGraph(stages=(), entries=tuple(ends))


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


def _native_rule(number: int, rule: _Rule, ports: Sequence[str]) -> _native.Rule:
    return native_rule(
        rule.settings.match,
        ports=ports,
        id=number,
        priority=rule.settings.priority,
        order=rule.order,
        action=rule.chain,
        isolation=rule.isolation,
        max_clients=rule.settings.max_clients,
        new_clients=rule.settings.new_clients,
        tenant=rule.settings.tenant or "",
    )
