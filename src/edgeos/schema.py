"""The keys of a manifest, table by table: their kinds, what they mean, and which of them must agree.

Defaults are those of the records in `edgeos.settings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeos.click.place import check_room, check_template
from edgeos.endpoint import IP_HINT, PATH_HINT, is_path
from edgeos.findings import BadValueError, shown
from edgeos.guest_tcp import check_origin
from edgeos.kinds import (
    Appliance,
    Choice,
    Config,
    ConfigFile,
    Definitions,
    Device,
    Flag,
    InputFile,
    Integer,
    Kind,
    MatchText,
    MatchTexts,
    Name,
    OutputFile,
    Permissions,
    Queues,
    SocketAddress,
    Table,
    Texts,
    Workers,
    byte_rate,
    cpu_share,
    duration,
    rate,
    size,
)
from edgeos.match import parse_match
from edgeos.policy import Policy
from edgeos.settings import (
    KIB,
    LISTENER_KINDS,
    MILLISECOND_NS,
    SECOND_NS,
    SLOT_GAP,
    SLOT_SIZE_DEFAULT,
    SLOTS_DEFAULT,
    STACK_MIN,
    ChainSettings,
    Grants,
    NodeSettings,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    TenantSettings,
    UnmatchedSettings,
    UpstreamSettings,
)
from edgeos.units import PERCENT_NS, format_size

MIB = 1024 * KIB
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
ANY = parse_match("any")
RATE_MAX = 1_000_000_000  # a second


@dataclass(frozen=True)
class Field:
    """One key. `attribute` is where the record keeps it, if not under the key itself.

    A required key has a `stand_in`, which takes the place of a missing or bad value while the other keys are checked.
    """

    key: str
    kind: Kind
    help: str
    attribute: str = ""
    required: bool = False
    stand_in: object = None

    @property
    def target(self) -> str:
        return self.attribute or self.key


@dataclass(frozen=True)
class Agreement:
    """Keys of one table that must fit together; `check` yields each key that does not and why."""

    keys: tuple[str, ...]
    check: Callable[[Any], Iterator[tuple[str, BadValueError]]]


@dataclass(frozen=True)
class Section:
    """One kind of table: `[node]`, `[port.NAME]` and so on, or `[[rule]]`."""

    title: str
    record: type
    fields: tuple[Field, ...]
    agreements: tuple[Agreement, ...] = ()

    @property
    def keys(self) -> list[str]:
        return [field.key for field in self.fields]

    def default(self, field: Field) -> str:
        """The field's default as a user would write it; empty if the key is required or is simply left out."""
        values = {f.name: f.default for f in dataclasses.fields(self.record)}
        value = values[field.target]
        return "" if field.required or value in (None, (), dataclasses.MISSING) else field.kind.show(value)

    def differs(self, record: object, field: Field) -> bool:
        """True if the record has another value for the field than when it is left out."""
        default = next(f.default for f in dataclasses.fields(self.record) if f.name == field.target)
        return bool(getattr(record, field.target) != default)


def _port_files(port: PortSettings) -> Iterator[tuple[str, BadValueError]]:
    given = [("read", port.read), ("write", port.write)]
    if port.kind == "pcap" and not port.read and not port.write:
        yield "read", BadValueError("neither read nor write", "read, write or both, for kind pcap")
    if port.kind != "pcap":
        for key, value in given:
            if value is not None:
                yield key, BadValueError(shown(str(value)), f"no {key} for kind {port.kind}, only for pcap")


def _port_device(port: PortSettings) -> Iterator[tuple[str, BadValueError]]:
    needed = port.kind in ("tap", "afpacket", "afxdp")
    if needed and port.device is None:
        yield (
            "device",
            BadValueError("nothing", f"the name of a network device, for kind {port.kind}", 'add device = "…"'),
        )
    if not needed and port.device is not None:
        kinds = "tap, afpacket and afxdp"
        yield "device", BadValueError(shown(port.device), f"no device for kind {port.kind}, only for {kinds}")


def _port_afxdp(port: PortSettings) -> Iterator[tuple[str, BadValueError]]:
    keys = ("queues", "take", "fallback")
    for field in PORT.fields:
        if field.key in keys and port.kind != "afxdp" and PORT.differs(port, field):
            found = field.kind.show(getattr(port, field.target))
            yield field.key, BadValueError(found, f"no {field.key} for kind {port.kind}, only for afxdp")
    if port.kind == "afxdp" and port.fallback != "none" and port.take:
        yield (
            "fallback",
            BadValueError(shown(port.fallback), 'only "none" with take: a packet socket cannot leave the rest alone'),
        )


# Which kinds of listener each key is for, beyond `listen`.
_LISTENER_KEYS = {
    "mode": ("unix",),
    "max_connections": LISTENER_KINDS,
    "max_per_client": ("tcp", "udp"),
    "client_prefix_v6": ("tcp", "udp"),
    "accept_rate": LISTENER_KINDS,
    "open_timeout": ("tcp", "unix"),
    "idle_timeout": LISTENER_KINDS,
    "backlog": ("tcp", "unix"),
    "proxy_protocol": ("tcp", "unix"),
    "output_limit": LISTENER_KINDS,
}


def _port_listen(port: PortSettings) -> Iterator[tuple[str, BadValueError]]:
    allowed = PATH_HINT if port.kind == "unix" else IP_HINT
    if port.is_listener and port.listen is None:
        yield "listen", BadValueError("nothing", f"{allowed}, for kind {port.kind}", 'add listen = "…"')
    elif port.is_listener and port.listen is not None and is_path(port.listen) != (port.kind == "unix"):
        yield "listen", BadValueError(shown(port.listen), f"{allowed}, for kind {port.kind}")
    elif not port.is_listener and port.listen is not None:
        kinds = _listed_kinds(LISTENER_KINDS)
        yield "listen", BadValueError(shown(port.listen), f"no listen for kind {port.kind}, only for {kinds}")


def _port_listener_keys(port: PortSettings) -> Iterator[tuple[str, BadValueError]]:
    for field in PORT.fields:
        kinds = _LISTENER_KEYS.get(field.key)
        if kinds is not None and port.kind not in kinds and PORT.differs(port, field):
            found = field.kind.show(getattr(port, field.target))
            allowed = f"no {field.key} for kind {port.kind}, only for {_listed_kinds(kinds)}"
            yield field.key, BadValueError(found, allowed)


def _listed_kinds(kinds: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _template_origin(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    origins = ("appliance", "source", "module", "click")
    given = [key for key in origins if getattr(template, key) is not None]
    if len(given) != 1:
        yield (
            " or ".join(given) or "appliance",
            BadValueError(" and ".join(given) or "nothing", f"exactly one of {', '.join(origins)}"),
        )


def _template_memory(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    # A module carries its own layout, and a source may: those are read when the guest is loaded.
    if template.module is not None or (template.slots is None and template.slot_size is None):
        return
    slots = SLOTS_DEFAULT if template.slots is None else template.slots
    slot_size = SLOT_SIZE_DEFAULT if template.slot_size is None else template.slot_size
    needed = slots * (slot_size + SLOT_GAP) + (template.stack or STACK_MIN)
    if needed > template.memory:
        yield (
            "memory",
            BadValueError(
                f'"{format_size(template.memory)}" for {format_size(needed)} of slots and stack',
                "at least slots * (slot_size + 64) + stack",
            ),
        )


def _template_ready(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    if template.ready_low > template.ready_high:
        yield "ready_low", BadValueError(str(template.ready_low), f"at most ready_high, {template.ready_high}")


def _chain_shape(chain: ChainSettings) -> Iterator[tuple[str, BadValueError]]:
    if not chain.path and not chain.links:
        yield "path", BadValueError("neither path nor links", 'one of the two, such as path = ["lan", "fw", "wan"]')
    if chain.path and chain.links:
        yield "path", BadValueError("path and links", "one of the two")


def _chain_keep(chain: ChainSettings) -> Iterator[tuple[str, BadValueError]]:
    if chain.keep and chain.isolate not in KEPT:
        yield "keep", not_kept(chain.isolate)
    for field in () if chain.keep else CHAIN.fields:
        if field.key in ("keep_memory", "keep_timeout") and CHAIN.differs(chain, field):
            found = field.kind.show(getattr(chain, field.target))
            yield field.key, BadValueError(found, f"no {field.key} without keep = true")


KEPT = ("client", "flow")


def not_kept(isolate: str, listener: str | None = None) -> BadValueError:
    """Why clients of this isolation are not parked; `listener` is one of the chain's ports."""
    why = "nobody leaves an FWP that all share" if isolate == "shared" else "a connection does not come back"
    behind = "" if listener is None else f" behind the listener {shown(listener)}"
    allowed = "client" if behind else "client or flow"
    return BadValueError(f'true with isolate = "{isolate}"{behind}', f"{allowed}: {why}")


def _rule_action(rule: RuleSettings) -> Iterator[tuple[str, BadValueError]]:
    given = {"chain": rule.chain is not None, "drop": rule.drop, "pass": bool(rule.pass_ports)}
    actions = [key for key, there in given.items() if there]
    if not actions:
        yield "chain", BadValueError("no action", 'chain = "NAME", drop = true or pass = ["lan", "wan"]')
    if len(actions) > 1:
        yield actions[-1], BadValueError(" and ".join(actions), "one of them")
    if (rule.pass_ports and len(set(rule.pass_ports)) != 2) or len(rule.pass_ports) > 2:
        yield "pass", BadValueError(f"{len(rule.pass_ports)} names", "two different ports, the clients' side first")


def _rule_clients(rule: RuleSettings) -> Iterator[tuple[str, BadValueError]]:
    if rule.chain is None:
        limits = {"max_clients": rule.max_clients or None, "new_clients": rule.new_clients or None}
        given = {"isolate": rule.isolate, **limits}
        for key, value in given.items():
            if value is not None:
                yield key, BadValueError(shown(value), f"no {key} without chain")


def _rule_tenant(rule: RuleSettings) -> Iterator[tuple[str, BadValueError]]:
    if rule.drop and rule.tenant is not None:
        yield "tenant", BadValueError(shown(rule.tenant), "no tenant with drop = true: dropped messages use no quota")


NODE = Section(
    "node",
    NodeSettings,
    (
        Field("workers", Workers(), "processes with a data-plane loop; auto: as fit the ports and the cores"),
        Field(
            "mover",
            Choice(("inline", "dedicated")),
            "copies messages on the thread that runs the guests, or on one of its own",
        ),
        Field("wait", Choice(("adaptive", "spin", "block")), "how ports wait: busy, asleep, or one and then the other"),
        Field("memory", Choice(("auto", "guard", "compact")), "how guest memories lie: fast bounds checks or close by"),
        Field("max_flows", Integer(16, 16_777_216), "entries of a worker's flow table"),
        Field("spare_fwps", Integer(0, 1_000_000), "room for FWPs of chains that are added while the node runs"),
        Field("spare_memory", size(0, 1024 * MIB, 64 * KIB), "largest memory of templates that are added meanwhile"),
        Field(
            "drain_timeout",
            duration(MILLISECOND_NS, DAY_NS, none=True),
            "how long clients that are there may stay after SIGTERM",
            attribute="drain_timeout_ns",
        ),
        Field(
            "orphan_timeout",
            duration(MILLISECOND_NS, DAY_NS, none=True),
            "how long worker processes go on without their supervisor",
            attribute="orphan_timeout_ns",
        ),
    ),
)

PORT = Section(
    "port.NAME",
    PortSettings,
    (
        Field(
            "kind",
            Choice(("pcap", "tap", "afpacket", "afxdp", *LISTENER_KINDS), api_only=("memory",)),
            "what it is",
            required=True,
            stand_in="pcap",
        ),
        Field("read", InputFile(), "pcap: the capture file that messages come from"),
        Field("write", OutputFile(), "pcap: the capture file that messages go to"),
        Field("device", Device(), "tap, afpacket, afxdp: the network device"),
        Field("queues", Queues(), "afxdp: the queue of the device that packets are taken from, or all"),
        Field("take", MatchTexts(), "afxdp: packets that are taken, all unless given; others go to the kernel's stack"),
        Field("fallback", Choice(("none", "afpacket")), "afxdp: the kind of port that is opened where it cannot be"),
        Field("listen", SocketAddress(), "tcp, udp: the address and port; unix: the path of the socket"),
        Field("mode", Permissions(), "unix: permissions of the socket"),
        Field("max_connections", Integer(1, 1_000_000), "tcp, udp, unix: connections at once; udp: clients' ports"),
        Field("max_per_client", Integer(1, 1_000_000), "tcp, udp: the same for each client"),
        Field("client_prefix_v6", Integer(1, 128), "tcp, udp: bits of an IPv6 address that tell clients apart there"),
        Field("accept_rate", Integer(0, 1_000_000), "tcp, udp, unix: new connections a second; 0 is any number"),
        Field(
            "open_timeout",
            duration(MILLISECOND_NS, DAY_NS, none=True),
            "tcp, unix: how soon a new connection must have sent its first byte",
            attribute="open_timeout_ns",
        ),
        Field(
            "idle_timeout",
            duration(MILLISECOND_NS, DAY_NS, none=True),
            "tcp, udp, unix: silence in both directions after which a connection is closed",
            attribute="idle_timeout_ns",
        ),
        Field("backlog", Integer(1, 65535), "tcp, unix: connections that wait to be accepted"),
        Field("proxy_protocol", Flag(), "tcp, unix: each connection starts with a PROXY header that names its client"),
        Field(
            "output_limit",
            size(4 * KIB, 16 * MIB, 1),
            "tcp, udp, unix: bytes that wait for a slow reader before its FWP waits",
        ),
    ),
    (
        Agreement(("kind", "read", "write"), _port_files),
        Agreement(("kind", "device"), _port_device),
        Agreement(("kind", "queues", "take", "fallback"), _port_afxdp),
        Agreement(("kind", "listen"), _port_listen),
        Agreement(("kind",), _port_listener_keys),
    ),
)

UPSTREAM = Section(
    "upstream.NAME",
    UpstreamSettings,
    (
        Field(
            "address",
            SocketAddress(),
            "where it is: an address and port of TCP, or the path of a Unix socket",
            required=True,
            stand_in="127.0.0.1:1",
        ),
    ),
)

GRANT = Section(
    "template.NAME.grant",
    Grants,
    (
        Field("connect", Texts("names of upstreams"), "upstreams that guests may open connections to, by their order"),
        Field("timer", Flag(), "true: guests may set timers"),
        Field("clock", Flag(), "true: guests may read the time of day"),
        Field("random", Flag(), "true: guests may draw randomness"),
    ),
)

TEMPLATE = Section(
    "template.NAME",
    TemplateSettings,
    (
        Field("appliance", Appliance(), "an appliance that ships with edgeos"),
        Field("source", InputFile(), "C source, built like `edgeos build` does"),
        Field("module", InputFile(), "a built WebAssembly module"),
        Field("click", InputFile(), "a configuration in the Click language"),
        Field("define", Definitions(), "values of the configuration's $variables"),
        Field("devices", Texts("names of devices"), "its devices: before the stage, behind out port 0, 1, …"),
        Field("config", Config(), "configuration for its init"),
        Field("config_file", ConfigFile(), "a file with that configuration", attribute="config"),
        Field("tcp", Flag(), "true: it speaks TCP by itself, and its chain starts at a port for packets"),
        Field("memory", size(64 * KIB, 1024 * MIB, 64 * KIB), "bytes of memory that one FWP may have"),
        Field(
            "budget",
            duration(MILLISECOND_NS, 10 * SECOND_NS),
            "time for one call, after which the FWP is killed",
            attribute="budget_ns",
        ),
        Field("stack", size(KIB, MIB, 16), "bytes of C stack; as much as the code needs unless given"),
        Field("slots", Integer(8, 256, power_of_two=True), "messages that one FWP holds; 64, or what the source says"),
        Field("slot_size", size(64, 64 * KIB, 64), "bytes of the largest message; 2KiB, or what the source says"),
        Field("ready_low", Integer(0, 65536), "the pool is refilled below this many ready FWPs"),
        Field("ready_high", Integer(1, 65536), "the pool then makes this many ready; more while many clients come"),
        Field("ready_max", Integer(1, 65536), "the most that it keeps ready while many clients come"),
        Field("grant", Table(Grants, tuple(GRANT.keys)), "what its guests may do beyond their messages"),
    ),
    (
        Agreement(("appliance", "source", "module", "click"), _template_origin),
        Agreement(("click", "define", "devices", "config"), check_template),
        Agreement(("appliance", "source", "module", "click", "tcp"), check_origin),
        Agreement(("memory", "slots", "slot_size", "stack"), _template_memory),
        Agreement(("click", "define", "devices", "memory", "slots", "slot_size", "stack"), check_room),
        Agreement(("ready_low", "ready_high"), _template_ready),
    ),
)

CHAIN = Section(
    "chain.NAME",
    ChainSettings,
    (
        Field("path", Texts("names of ports and templates"), "a line from port to port"),
        Field("links", Texts('links such as "fw[1] -> audit"'), "a graph, instead of path"),
        Field(
            "isolate",
            Choice(("shared", "client", "connection", "flow")),
            "who shares an FWP: all, one client address, one connection, one flow",
        ),
        Field(
            "idle_timeout",
            duration(MILLISECOND_NS, DAY_NS),
            "silence after which a client's FWPs are recycled",
            attribute="idle_timeout_ns",
        ),
        Field("keep", Flag(), "true: they are parked, and a client that comes back finds its data"),
        Field("keep_memory", size(64 * KIB, 1024 * 1024 * MIB, 1), "bytes that its parked clients may take together"),
        Field(
            "keep_timeout",
            duration(MILLISECOND_NS, 365 * DAY_NS, none=True),
            "how long a client stays parked",
            attribute="keep_timeout_ns",
        ),
        Field("max_fwps", Integer(1, 1_000_000), "live FWPs of this chain: clients times stages"),
        Field("when_full", Choice(("refuse", "evict")), "at max_fwps: refuse new clients or evict the longest idle"),
        Field(
            "on_kill",
            Choice(("restart", "block")),
            "the client of a killed FWP gets a fresh one, or nothing for one idle timeout",
        ),
        Field("new_clients", rate(RATE_MAX), "clients that may come, in a second"),
    ),
    (
        Agreement(("path", "links"), _chain_shape),
        Agreement(("keep", "keep_memory", "keep_timeout_ns", "isolate"), _chain_keep),
    ),
)

TENANT = Section(
    "tenant.NAME",
    TenantSettings,
    (
        Field("cpu", cpu_share(PERCENT_NS // 100, 1024 * 100 * PERCENT_NS), "CPU time of its guests, of one core"),
        Field("memory", size(64 * KIB, 1024 * 1024 * MIB, 1, none=True), "bytes of its FWPs' memories together"),
        Field("max_fwps", Integer(0, 1_000_000), "live FWPs; 0 is any number"),
        Field("max_clients", Integer(0, 1_000_000), "clients at once; 0 is any number"),
        Field("copy_rate", byte_rate(1, 10**12), "bytes that are copied for it, in a second"),
        Field("message_rate", rate(RATE_MAX), "messages from ports, in a second"),
        Field("new_clients", rate(RATE_MAX), "clients that come, in a second"),
    ),
)

RULE = Section(
    "rule",
    RuleSettings,
    (
        Field("match", MatchText(), "which flows", required=True, stand_in=ANY),
        Field("chain", Name(), "the chain they go through"),
        Field("drop", Flag(), "true: they are dropped"),
        Field(
            "pass",
            Texts("names of ports, the clients' side first"),
            "they go from one of the two ports to the other, unchanged",
            attribute="pass_ports",
        ),
        Field("priority", Integer(-1_000_000, 1_000_000), "the higher is asked first, then the order of writing"),
        Field("isolate", Choice(("shared", "client", "connection", "flow")), "instead of the chain's isolate"),
        Field("max_clients", Integer(0, 1_000_000), "clients that the rule lets in at once; 0 is any number"),
        Field("new_clients", rate(RATE_MAX), "clients that the rule lets in, in a second"),
        Field("tenant", Name(), "whose quotas its clients share"),
    ),
    (
        Agreement(("chain", "drop", "pass_ports"), _rule_action),
        Agreement(("chain", "isolate", "max_clients", "new_clients"), _rule_clients),
        Agreement(("drop", "tenant"), _rule_tenant),
    ),
)

UNMATCHED = Section(
    "unmatched",
    UnmatchedSettings,
    (
        Field("callback", Policy(), "the function that decides about clients which no rule matches", required=True),
        Field(
            "deadline",
            duration(MILLISECOND_NS, HOUR_NS),
            "how long its answer may take, before the default holds",
            attribute="deadline_ns",
        ),
        Field("default", Name(), "the chain that clients without an answer go through; dropped unless given"),
        Field(
            "keep",
            duration(MILLISECOND_NS, DAY_NS),
            "silence after which a client is asked about anew",
            attribute="keep_ns",
        ),
        Field("max_clients", Integer(1, 1_000_000), "clients whose answers are remembered"),
        Field("max_waiting", Integer(1, 1_000_000), "clients that wait for an answer at once"),
    ),
)

SECTIONS: Mapping[str, Section] = {
    "node": NODE,
    "port": PORT,
    "upstream": UPSTREAM,
    "template": TEMPLATE,
    "chain": CHAIN,
    "tenant": TENANT,
    "rule": RULE,
    "unmatched": UNMATCHED,
}
INNER: Mapping[type, Section] = {GRANT.record: GRANT}  # tables that are the value of a key
RECORDS: Mapping[type, Section] = {**{section.record: section for section in SECTIONS.values()}, **INNER}
