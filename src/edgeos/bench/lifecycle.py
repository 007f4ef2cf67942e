"""The life of an FWP, measured: create, first call and recycle in the kernel, activation through a real node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from edgeos import _native
from edgeos.checkpoint import Checkpoint
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError
from edgeos.guest import load_guest
from edgeos.installed import wasmtime_library
from edgeos.node import Node, make_engine_settings
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.statistics import ChainStatistics
from edgeos.system_limits import GUARD_FWPS_MAX
from edgeos.testing import udp_packet

BRIDGE = TemplateSettings(name="bridge", appliance="bridge")
MESSAGE_BYTES = 64
BURST = 32
IDLE_TIMEOUT_NS = {"guard": 1_000_000, "compact": 10_000_000}
"""Short, so that clients leave as others come and pools recycle; some 200 and 2,000 clients live at a time."""

LIVE_MAX = {"guard": GUARD_FWPS_MAX, "compact": 4000}
ENGINE_SPARE = 1  # FWPs that the engine has room for beyond those that live


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Nanoseconds of each step, one sample a round, and of a whole create, handle, recycle on average."""

    create: list[int]
    first_call: list[int]
    recycle: list[int]
    whole_ns: float


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What a node's own histogram says of one run, nanoseconds; the quantiles are upper bounds of buckets of 6 %."""

    clients: int
    p50_ns: float
    p99_ns: float
    max_ns: float
    peak: int
    evicted: int
    made_on_path: int


def load_bridge() -> Checkpoint:
    """The bridge appliance at its checkpoint, with the defaults of a template."""
    _native.open_wasmtime(str(wasmtime_library()))
    return load_guest(BRIDGE, CodeCache())


def memory_mode(fwps: int) -> str:
    """What `node.memory = "auto"` chooses for so many FWPs."""
    return "compact" if fwps > GUARD_FWPS_MAX else "guard"


def measure_lifecycle(guest: Checkpoint, *, mode: str, rounds: int, live: int, random: bool = False) -> Lifecycle:
    """`rounds` lives, spread over `live` FWPs, in an engine as a node with that `node.memory` makes it.

    `random` is whether the guest is granted that.
    """
    layout = guest.layout
    times = _native.measure_lifecycle(
        make_engine_settings(live + ENGINE_SPARE, BRIDGE.memory, [guest], compact=mode == "compact"),
        guest.wasm,
        slots=layout.slots,
        slot_size=layout.slot_size,
        slot_stride=layout.slot_stride,
        messages=layout.messages,
        verdicts=layout.verdicts,
        data=layout.data,
        memory=guest.initial_memory,
        stack=layout.stack_pointer,
        rounds=rounds,
        live=live,
        len=MESSAGE_BYTES,
        random=random,
    )
    return Lifecycle(
        create=times["create"],
        first_call=times["first_call"],
        recycle=times["recycle"],
        whole_ns=times["whole_ns"] / rounds,
    )


def measure_activation(*, mode: str, clients: int, at_once: int = 1) -> Activation:
    """New clients that arrive one at a time, or `at_once` in one burst, at a node with ready FWPs.

    Between two arrivals the node does what it would do while it waits: end idle clients, recycle, refill.
    """
    lan = _native.MemoryPort("lan")
    wan = _native.MemoryPort("wan", sink=True)
    with Node(NodeSettings(memory="compact" if mode == "compact" else "guard")) as node:
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(BRIDGE)
        node.add_chain(
            ChainSettings(
                name="edge",
                path=("lan", "bridge", "wan"),
                idle_timeout_ns=IDLE_TIMEOUT_NS[mode],
                max_fwps=LIVE_MAX[mode],
                when_full="evict",
            )
        )
        node.add_rule("ip", chain="edge")
        _settle(node)
        for burst in _bursts(clients, at_once):
            for packet in burst:
                lan.inject(packet)
            _settle(node)
        chain = node.statistics(guest_counters=False).chain("edge")
    _check(chain, clients)
    return Activation(
        clients=clients,
        p50_ns=chain.activation_p50_ns,
        p99_ns=chain.activation_p99_ns,
        max_ns=chain.activation_max_ns,
        peak=chain.peak,
        evicted=chain.evicted,
        made_on_path=chain.stages[0].made_on_path,
    )


def _bursts(clients: int, at_once: int) -> Iterator[list[bytes]]:
    packets: list[bytes] = []
    for number in range(clients):
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        packets.append(udp_packet(address, "192.0.2.1", bytes(MESSAGE_BYTES - 42)))
        if len(packets) == at_once or number == clients - 1:
            yield packets
            packets = []


def _settle(node: Node) -> None:
    end = time.monotonic() + 10
    while node.run_once():
        if time.monotonic() > end:
            raise EdgeosError("the node did not come to rest within 10 s")


def _check(chain: ChainStatistics, clients: int) -> None:
    if chain.activations != clients or chain.sent != clients:
        raise EdgeosError(
            f"of {clients} clients {chain.activations} were activated and {chain.sent} messages sent; "
            f"dropped {chain.dropped}, killed {chain.kills}"
        )
