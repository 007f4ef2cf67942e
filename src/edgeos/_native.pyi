"""Types of the native kernel's bindings; private to the package."""

from collections.abc import Sequence
from typing import Any, Literal

BURST: int
SLOTS_MAX: int

def open_wasmtime(path: str) -> None: ...

class Port:
    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> str: ...

class MemoryPort(Port):
    def __init__(
        self,
        name: str,
        capacity: int = 4096,
        lossless: bool = False,
        loop: Sequence[tuple[bytes, int]] = ...,
        loop_limit: int = 0,
        sink: bool = False,
        burst: int = ...,
        rate: int = 0,
        unpaced: int = 0,
        untimed: int = 0,
    ) -> None: ...
    def inject(self, data: bytes, time_ns: int = 0) -> bool: ...
    def take(self) -> list[tuple[bytes, int]]: ...
    def latency_ns(self, quantile: float) -> int: ...
    @property
    def timed(self) -> int: ...

class PcapPort(Port):
    def __init__(self, name: str, read: str = "", write: str = "") -> None: ...

class TapPort(Port):
    def __init__(self, name: str, device: str, offload: bool = True, fd: int = -1) -> None: ...

class AfPacketPort(Port):
    def __init__(self, name: str, device: str, mode: str = "", fd: int = -1) -> None: ...

def open_packet_group(device: str, *, sockets: int, by_destination: bool) -> list[int]: ...
def open_tap_queues(device: str, *, queues: int, by_destination: bool) -> list[int]: ...

class Umem:
    @staticmethod
    def bytes_for(devices: Sequence[tuple[str, int]]) -> int: ...
    def __init__(self, devices: Sequence[tuple[str, int]]) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def free_frames(self) -> int: ...
    @property
    def frame_bytes(self) -> int: ...

class AfXdpPort(Port):
    def __init__(self, name: str, device: str, umem: Umem, queue: int = -1, take: Sequence[Rule] = ...) -> None: ...
    def frames(self) -> list[tuple[int, int, int, int, int]]: ...

class XdpPairPort(Port):
    def __init__(self, name: str, device: str, space: int, *, everything: bool) -> None: ...
    def frames(self) -> tuple[int, int, int, int, int]: ...

def open_xdp_pairs(
    device: str, *, workers: int, by_destination: bool, queue: int, take: Sequence[Rule]
) -> tuple[int, list[int]]: ...
def xdp_program(take: Sequence[Rule]) -> bytes: ...
def xdp_spreading_program(take: Sequence[Rule], *, workers: int, by_destination: bool, queue: int = -1) -> bytes: ...

class Listener(Port):
    @property
    def kind(self) -> Literal["tcp", "udp", "unix"]: ...
    @property
    def listen(self) -> str: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def port_number(self) -> int: ...

def open_listener(
    name: str,
    kind: str,
    address: str,
    port: int = 0,
    *,
    backlog: int = 1024,
    max_connections: int = 10_000,
    max_per_client: int = 1000,
    client_prefix_v6: int = 64,
    accept_rate: int = 0,
    open_timeout_ns: int = 0,
    idle_timeout_ns: int = 0,
    proxy_protocol: bool = False,
    mode: int = 0o660,
    output_limit: int = 262_144,
    fd: int = -1,
) -> Listener: ...
def open_listening_group(
    kind: str,
    address: str,
    port: int,
    *,
    sockets: int,
    by_source: bool = True,
    backlog: int = 1024,
    mode: int = 0o660,
) -> list[int]: ...

class Rule:
    def __init__(
        self,
        *,
        id: int,
        priority: int,
        order: int,
        action: int,
        isolation: int,
        max_clients: int,
        ip: bool | None = None,
        ip_version: int = 0,
        ethertype: int | None = None,
        protocol: int | None = None,
        source: tuple[bytes, int] | None = None,
        destination: tuple[bytes, int] | None = None,
        source_ports: tuple[int, int] | None = None,
        destination_ports: tuple[int, int] | None = None,
        any_port: tuple[int, int] | None = None,
        vlan: int | None = None,
        port: int | None = None,
        new_clients: int = 0,
        tenant: str = "",
        server_name: str = "",
    ) -> None: ...
    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def order(self) -> int: ...
    @property
    def action(self) -> int: ...

class RuleTable:
    def __init__(self) -> None: ...
    def add(self, rule: Rule) -> None: ...
    def remove(self, id: int) -> None: ...
    @property
    def ids(self) -> list[int]: ...

class TenantSpec:
    def __init__(
        self,
        name: str,
        *,
        cpu_ns: int,
        memory: int,
        fwps: int,
        clients: int,
        copied_bytes: int,
        messages: int,
        new_clients: int,
    ) -> None: ...

class ChainSpec:
    def __init__(
        self,
        name: str,
        *,
        when_full: int,
        on_kill: int,
        idle_timeout_ns: int,
        keep: bool = False,
        keep_memory: int = 0,
        keep_timeout_ns: int = 0,
        max_fwps: int,
        new_clients: int,
        domain: int,
        stages: Sequence[tuple[str, int, list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]],
        entries: Sequence[tuple[int, int, int, int]],
    ) -> None: ...

class EngineSettings:
    def __init__(
        self, *, fwps: int, memory_max: int, compact: bool, copy_on_write: bool, keep_resident: int
    ) -> None: ...
    @property
    def code_key(self) -> str: ...
    @property
    def memory_max(self) -> int: ...

def hot_bytes(
    *, slot_size: int, messages: int, verdicts: int, data: int, stack: int, counters: Sequence[int], most: int
) -> int: ...

class Worker:
    def __init__(
        self, engine: EngineSettings, *, dedicated_mover: bool = False, wait: int = 0, max_flows: int = 65536
    ) -> None: ...
    def compile(self, wasm: bytes) -> bytes: ...
    def add_port(self, port: Port) -> None: ...
    def add_listener(self, port: Port) -> int: ...
    def change_listeners(self, *, opened: Sequence[int], closed: Sequence[int]) -> None: ...
    def add_template(
        self,
        name: str,
        code: bytes,
        *,
        slots: int,
        slot_size: int,
        slot_stride: int,
        messages: int,
        verdicts: int,
        data: int,
        memory: int,
        stack: int,
        counters: Sequence[tuple[str, int]],
        budget_ns: int,
        ready_low: int,
        ready_high: int,
        ready_max: int = 0,
        timer: bool = False,
        clock: bool = False,
        random: bool = False,
        connects: Sequence[int] = (),
    ) -> int: ...
    def add_upstream(self, kind: str, address: str, port: int = 0) -> None: ...
    def apply(
        self,
        *,
        chains: Sequence[ChainSpec],
        retired_chains: Sequence[int],
        retired_templates: Sequence[int],
        rules: Sequence[Rule],
        removed_rules: Sequence[int],
        rule_orders: Sequence[tuple[int, int]],
        tenants: Sequence[TenantSpec] = (),
        removed_tenants: Sequence[str] = (),
    ) -> list[int]: ...
    def set_decisions(
        self, *, deadline_ns: int, keep_ns: int, clients_max: int, waiting_max: int, otherwise: Rule
    ) -> None: ...
    def take_questions(self, timeout_ns: int) -> list[dict[str, Any]]: ...
    def answer(self, question: int, rule: Rule | None) -> None: ...
    def run_once(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait_finished(self, timeout_ns: int) -> bool: ...
    @property
    def failure(self) -> str: ...
    def set_fake_time(self, ns: int) -> None: ...
    def snapshot(self, with_guest_counters: bool = True) -> dict[str, Any]: ...
    def close_chain(self, chain: int) -> None: ...
    def drain(self) -> None: ...
    def stop_listening(self) -> None: ...
    def clients(self, chain: int) -> list[dict[str, Any]]: ...
    def access(
        self, chain: int, stage: int, client: bytes | None, *, write: bool, name: bytes, value: bytes
    ) -> list[dict[str, Any]]: ...

def measure_lifecycle(
    settings: EngineSettings,
    wasm: bytes,
    *,
    slots: int,
    slot_size: int,
    slot_stride: int,
    messages: int,
    verdicts: int,
    data: int,
    memory: int,
    stack: int,
    rounds: int,
    live: int,
    len: int,
    random: bool = False,
) -> dict[str, Any]: ...
