"""Clients that no rule matches: a program's callback is asked about each, once, on a thread of its own.

The kernel keeps some of the client's messages meanwhile, holds to the deadline by itself, and remembers what was
decided until nothing has been heard of the client for a while. Nothing that the callback does reaches the path of
messages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from edgeos import _native
from edgeos.errors import EdgeosError, ManifestError
from edgeos.findings import BadValueError, Findings
from edgeos.policy import load_function
from edgeos.settings import Manifest, UnmatchedSettings
from edgeos.statistics import client_address
from edgeos.units import NANOSECONDS

_WAIT_NS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class UnmatchedClient:
    """Who is asked about, and the first message: addresses and ports seen from the client.

    `port` is the node's port of entry; `protocol` is IP's number (6: TCP, 17: UDP), 0 for what is not IP; `server_name`
    is that of TLS, where rules ask for names, else empty.
    """

    address: str
    client_port: int
    peer: str
    peer_port: int
    protocol: int
    vlan: int | None
    port: str
    server_name: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What becomes of a client: a chain it goes through, two ports it is passed on between, or, with neither, a drop.

    `isolate` overrides the chain's, `tenant` names whose quotas hold.
    """

    chain: str | None = None
    pass_ports: tuple[str, str] | None = None
    isolate: Literal["shared", "client", "connection", "flow"] | None = None
    tenant: str | None = None


DROP = Answer()

Callback = Callable[[UnmatchedClient], Answer | str | None]
"""Returns an answer, the name of a chain, or None for the default."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How clients are asked about, see `Node.on_unmatched`."""

    callback: Callback
    deadline: float
    default: Answer
    keep: float
    max_clients: int
    max_waiting: int


def load_asking(manifest: Manifest, settings: UnmatchedSettings) -> Asking:
    """How a manifest wants clients to be asked about. Raises ManifestError when its function cannot be loaded."""
    findings = Findings(manifest.path)
    try:
        callback = load_function(settings.callback)
    except BadValueError as problem:
        findings.report("unmatched", "callback", problem)
        raise ManifestError(findings.problems) from None
    return Asking(
        callback=cast("Callback", callback),
        deadline=settings.deadline_ns / NANOSECONDS["s"],
        default=DROP if settings.default is None else Answer(chain=settings.default),
        keep=settings.keep_ns / NANOSECONDS["s"],
        max_clients=settings.max_clients,
        max_waiting=settings.max_waiting,
    )


class Asker:
    """The thread that asks. `rule_of` makes the kernel's rule of an answer, or raises."""

    def __init__(
        self, worker: _native.Worker, asking: Asking, ports: list[str], rule_of: Callable[[Answer], _native.Rule]
    ) -> None:
        self._worker = worker
        self._ports = ports
        self._rule_of = rule_of
        self._stopping = threading.Event()
        self._problem = ""
        self.change(asking)

    def change(self, asking: Asking) -> None:
        """Asks by this from now on, on a new thread: the last callback may never return."""
        self._settle(asking)
        self._problem = ""
        self._current = (asking, threading.Lock())
        threading.Thread(target=self._ask, args=(asking,), name="edgeos-unmatched", daemon=True).start()

    def name_ports(self, names: list[str]) -> None:
        """The node has other ports now; by number."""
        self._ports = names

    @property
    def problem(self) -> str:
        """What the callback raised last, empty if nothing."""
        return self._problem

    def _settle(self, asking: Asking) -> None:
        """Tells the kernel what the default is, whose chain may be another than before. Raises as `rule_of`."""
        self._worker.set_decisions(
            deadline_ns=int(asking.deadline * 1e9),
            keep_ns=int(asking.keep * 1e9),
            clients_max=asking.max_clients,
            waiting_max=asking.max_waiting,
            otherwise=self._rule_of(asking.default),
        )

    def follow(self) -> None:
        """Chains or tenants have changed. A default that names what is gone is to drop, as the kernel did at once."""
        try:
            self._settle(self._current[0])
        except EdgeosError as error:
            self._problem = f"the default cannot be had any more, unmatched clients are dropped: {error}"

    def stop(self) -> None:
        """Asks no more. A callback that runs is not waited for: it may never return."""
        self._stopping.set()

    def _ask(self, asking: Asking) -> None:
        while self._current[0] is asking and not self._stopping.is_set():
            # What this thread has taken when the callback changes, it asks the new one.
            for raw in self._worker.take_questions(_WAIT_NS):
                if self._stopping.is_set():
                    return
                self._worker.answer(raw["id"], self._answer_of(raw))

    def _answer_of(self, raw: dict[str, Any]) -> _native.Rule | None:
        """The kernel's rule, or None when the default is to hold because the callback failed."""
        asking, calling = self._current
        try:
            with calling:  # callbacks need not know of threads, also while one that was changed still has questions
                given = asking.callback(_client(raw, self._ports))
            if given is None:
                given = asking.default
            return self._rule_of(Answer(chain=given) if isinstance(given, str) else given)
        except BaseException as error:  # whatever a program's callback does, the node goes on; it may call sys.exit()
            self._problem = f"{type(error).__name__}: {error}"
            return None


def _client(raw: dict[str, Any], ports: list[str]) -> UnmatchedClient:
    return UnmatchedClient(
        address=client_address(raw["address"], raw["is_ip"]),
        client_port=raw["client_port"],
        peer=client_address(raw["peer"], raw["is_ip"]),
        peer_port=raw["peer_port"],
        protocol=raw["protocol"],
        vlan=(raw["vlan"] & 0xFFFF) - 1 if raw["vlan"] else None,
        port=ports[raw["port"]],
        server_name=raw["server_name"],
    )
