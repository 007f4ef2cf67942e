"""What the demo tells: its steps as they are taken, what it expected, and the tables at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from edgeos.demo.scenario import BLOCKED, EVERYBODY, HOSTILE, INSPECTED
from edgeos.report import summary
from edgeos.statistics import ClientStatistics, NodeStatistics
from edgeos.terminal import console


@dataclass(frozen=True, kw_only=True)
class ClientResult:
    """What one client saw: requests answered and failed, bytes of the answers."""

    served: int = 0
    failed: int = 0
    received_bytes: int = 0

    def __add__(self, other: ClientResult) -> ClientResult:
        return ClientResult(
            served=self.served + other.served,
            failed=self.failed + other.failed,
            received_bytes=self.received_bytes + other.received_bytes,
        )


class Story:
    """Tells the demo and remembers which expectations were not met."""

    def __init__(self) -> None:
        self.console = console()
        self.unmet: list[str] = []

    def step(self, text: str) -> None:
        """The next step, in one line."""
        self._line("▸ ", "bold cyan", text)

    def note(self, text: str) -> None:
        """Something to know, such as what is left out."""
        self._line("  · ", "dim", text)

    def expect(self, met: bool, text: str, found: str = "") -> None:
        """Something that must be so; `found` says what was there instead."""
        if met:
            self._line("  ✓ ", "green", text)
            return
        self.unmet.append(text)
        self._line("  ✗ ", "bold red", f"{text}{found and ': '}{found}")

    def expect_accounts(self, statistics: NodeStatistics) -> None:
        """The conservation law, for the node and each chain."""
        off = {"node": statistics.balance} | {chain.name: chain.balance for chain in statistics.chains}
        self.expect(
            not any(off.values()),
            "received + emitted = sent + dropped + in flight, for the node and for each chain",
            f"off by {off}",
        )

    def tables(
        self,
        results: Mapping[str, ClientResult],
        clients: Mapping[str, ClientStatistics],
        statistics: NodeStatistics,
    ) -> None:
        """The clients one by one, then everything that the node counted."""
        self.console.print()
        self.console.print(_client_table(results, clients))
        self.console.print()
        self.console.print(summary(statistics))

    def end(self, seconds: float) -> int:
        """The last line; the exit status."""
        self.console.print()
        if self.unmet:
            self._line("✗ ", "bold red", f"{len(self.unmet)} expectations were not met, in {seconds:.1f} s")
            return 1
        self._line("✓ ", "bold green", f"everything was as expected, in {seconds:.1f} s")
        return 0

    def _line(self, sign: str, style: str, text: str) -> None:
        self.console.print(Text.assemble((sign, style), text))


def _client_table(results: Mapping[str, ClientResult], clients: Mapping[str, ClientStatistics]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("client")
    for column in ("served", "failed", "bytes", "fw allowed", "fw denied", "mon packets", "mon bytes", "inspected"):
        table.add_column(column, justify="right")
    table.add_column("")
    for client in EVERYBODY:
        result = results.get(client, ClientResult())
        counters = clients[client].counters if client in clients else {}
        table.add_row(
            client,
            *(f"{number:,}" for number in (result.served, result.failed, result.received_bytes)),
            _sum(counters, "fw", "allowed", "established"),
            _sum(counters, "fw", "denied"),
            _sum(counters, "mon", "packets_forward", "packets_reverse"),
            _sum(counters, "mon", "bytes_forward", "bytes_reverse"),
            _sum(counters, "inspect", "inspected"),
            *_remark(client),
        )
    return table


def _sum(counters: Mapping[str, Mapping[str, int]], stage: str, *names: str) -> str:
    found = counters.get(stage)
    return f"{sum(found.get(name, 0) for name in names):,}" if found else "-"


def _remark(client: str) -> tuple[Text]:
    if client == BLOCKED:
        return (Text("blocked by rule", "yellow"),)
    if client == HOSTILE:
        return (Text("hostile, killed", "red"),)
    return (Text("unharmed" if client in INSPECTED else "", "dim"),)
