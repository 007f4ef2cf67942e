"""Figures of a benchmark's result, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgeos.bench.chain import LINE_RATE_MPPS
from edgeos.bench.listen_subjects import NODES
from edgeos.bench.memory import ACTIVE_MAX, KIB
from edgeos.bench.result import Result
from edgeos.errors import EdgeosError

MICROSECOND_NS = 1000
MILLISECOND_NS = 1_000_000


def save(result: Result, path: Path) -> None:
    """Draws the result into a file whose ending says the format. Raises EdgeosError when it cannot be written."""
    figure = _DRAWINGS[result.benchmark](result.results)
    figure.suptitle(f"edgeos bench {result.benchmark}: {result.machine.cpu}, Linux {result.machine.kernel}", fontsize=9)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise EdgeosError(f"{path} cannot be written: {error}") from None


def _startup(results: Mapping[str, Any]) -> Figure:
    bars = {name: process["ended"] for name, process in results["processes"].items()}
    fwp = results["fwp"][results["default_mode"]]
    for step in ("recycle", "create", "activate"):
        bars[f"FWP {step}"] = fwp[step]
    figure, axes = _canvas(9, 4.5)
    medians = [bar["p50_ns"] / MICROSECOND_NS for bar in bars.values()]
    tails = [max(0.0, (bar["p99_ns"] - bar["p50_ns"]) / MICROSECOND_NS) for bar in bars.values()]
    axes.barh(list(bars), medians, xerr=[[0.0] * len(tails), tails], color=_colours(bars), ecolor="0.4", capsize=3)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=0.1)
    axes.set_xlabel("microseconds, median and 99th percentile")
    return figure


def _chain(results: Mapping[str, Any]) -> Figure:
    sizes = sorted({row["size"] for row in results["chain"]})
    figure = Figure(figsize=(3.2 * len(sizes), 3.8), layout="constrained")
    lines = {
        "inline": [row for row in results["chain"] if row["mode"] == "inline"],
        "dedicated": [row for row in results["chain"] if row["mode"] == "dedicated"],
        "one FWP, no copies": results["one_fwp"],
        "memcpy": [row for row in results["memcpy"] if row["how"] == "call"],
        "veth and bridges": results["veth"],
    }
    for position, size in enumerate(sizes, start=1):
        axes = figure.add_subplot(1, len(sizes), position)
        for label, rows in lines.items():
            points = sorted((row["length"], row["mpps"]) for row in rows if row["size"] == size)
            axes.plot([length for length, _ in points], [mpps for _, mpps in points], marker="o", label=label)
        if size == min(sizes):
            axes.axhline(LINE_RATE_MPPS, color="0.6", linestyle=":", label="10 GbE line rate")
        axes.set_yscale("log")
        axes.set_title(f"{size} B")
        axes.set_xlabel("FWPs")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("million messages a second")
    figure.axes[0].legend(fontsize=7)
    return figure


def _memory(results: Mapping[str, Any]) -> Figure:
    fwp = results["fwp"][results["default_mode"]]
    bars = {
        "Python process": results["python_process"],
        "minimal process": results["minimal_process"],
        "FWP, active client, burst of 10": fwp["active_burst"],
        "FWP, active client": fwp["active"],
        "FWP, idle and ready": fwp["idle"],
    }
    figure, axes = _canvas(9, 3)
    axes.barh(list(bars), [bar["total"] / KIB for bar in bars.values()], color=_colours(bars))
    axes.axvline(ACTIVE_MAX / KIB, color="0.5", linestyle=":", label="bar for an active client")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.set_xlabel("KiB, resident and page tables")
    axes.legend(fontsize=8)
    return figure


def _listen(results: Mapping[str, Any]) -> Figure:
    links = [link for link in ("tap", "loopback") if any(row["link"] == link for row in results["loads"])]
    figure = Figure(figsize=(9, 4 * len(links)), layout="constrained")
    kinds = (("messages_per_second", "messages a second"), ("p99_ns", "99th percentile of a message's time, ns"))
    subjects = dict.fromkeys(row["subject"] for row in results["loads"])
    for position, (link, (key, label)) in enumerate(product(links, kinds), start=1):
        axes = figure.add_subplot(len(links), len(kinds), position)
        for number, subject in enumerate(subjects):  # each has its colour over all links
            rows = [row for row in results["loads"] if (row["link"], row["subject"]) == (link, subject)]
            look: dict[str, Any] = {"color": f"C{number}", "linewidth": 2.5 if subject in NODES else 1.0}
            connections = [row["connections"] for row in rows]
            axes.plot(connections, [row[key] for row in rows], marker="o", label=subject, **look)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(link)
        axes.set_xlabel("connections")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _click(results: Mapping[str, Any]) -> Figure:
    rows = results["configurations"]
    series = {"native Click": [row["native"] for row in rows], "one FWP": [row["one_fwp"] for row in rows]}
    for clients in rows[0]["fwp_per_client"]:
        label = "one client" if clients == "1" else f"an FWP for each of {clients} clients"
        series[label] = [row["fwp_per_client"][clients] for row in rows]
    figure, axes = _canvas(10, 4)
    width = 0.8 / len(series)
    for position, (label, figures) in enumerate(series.items()):
        places = [index + (position - (len(series) - 1) / 2) * width for index in range(len(rows))]
        axes.bar(places, [found["ns_per_packet"] if found else 0.0 for found in figures], width, label=label)
    axes.set_xticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylabel("nanoseconds a packet")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _density(results: Mapping[str, Any]) -> Figure:
    figure, axes = _canvas(7, 4)
    for label, rows in (("FWPs", results["fwps"]), ("processes, proportional", results["processes"])):
        shown = [row for row in rows if row["share"] is not None]
        axes.plot(
            [row["clients"] for row in shown],
            [row["share"] / KIB for row in shown],
            marker="o",
            label=f"{label}, memory",
        )
    axes.set_xlabel("live clients")
    axes.set_ylabel("KiB a client, page tables included")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _churn(results: Mapping[str, Any]) -> Figure:
    figure, axes = _canvas(7, 4)
    for life in sorted({row["lifetime_ns"] for row in results["crowds"]}):
        rows = [row for row in results["crowds"] if row["lifetime_ns"] == life]
        rates = [row["offered_rate"] for row in rows]
        label = f"FWP, client lives {life / 1e9:g} s"
        axes.plot(rates, [row["activation_p99_ns"] / MICROSECOND_NS for row in rows], marker="o", label=label)
    for name, process in results["processes"].items():
        axes.axhline(process["p50_ns"] / MICROSECOND_NS, linestyle=":", color="0.5")
        axes.annotate(f"{name}, median", (rates[0], process["p50_ns"] / MICROSECOND_NS), fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("new clients a second")
    axes.set_ylabel("activation, 99th percentile, microseconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _scale(results: Mapping[str, Any]) -> Figure:
    rows = results["passages"]
    ports = [port for port in dict.fromkeys(row["port"] for row in rows) if port != "none"]
    figure = Figure(figsize=(4.2 * len(ports), 4), layout="constrained")
    for position, port in enumerate(ports, start=1):
        axes = figure.add_subplot(1, len(ports), position)
        for subject in dict.fromkeys(row["subject"] for row in rows):
            shown = [row for row in rows if row["subject"] == subject and row["port"] in (port, "none")]
            if port == "memory" and shown and shown[0]["port"] == "none":
                continue
            clients = [row["clients"] for row in shown]
            axes.plot(clients, [row["p99_ns"] / MICROSECOND_NS for row in shown], marker="o", label=subject)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(port)
        axes.set_xlabel("clients")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("99th percentile under way, microseconds")
    return figure


def _ports(results: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    pauses = sorted({row["pause_us"] for row in results["round_trips"]})
    for position, pause in enumerate(pauses, start=1):
        axes = figure.add_subplot(1, len(pauses), position)
        rows = [row for row in results["round_trips"] if row["pause_us"] == pause]
        labels = [f"{row['subject']} {row['wait']}".strip() for row in rows]
        medians = [row["p50_ns"] / MICROSECOND_NS for row in rows]
        tails = [max(0.0, (row["p99_ns"] - row["p50_ns"]) / MICROSECOND_NS) for row in rows]
        axes.barh(labels, medians, xerr=[[0.0] * len(tails), tails], color="tab:blue", ecolor="0.4", capsize=3)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_title("one after the other" if pause == 0 else f"{pause / 1000:g} ms apart")
        axes.set_xlabel("microseconds, median and 99th percentile")
    return figure


def _memcached(results: Mapping[str, Any]) -> Figure:
    rows = [row for row in results["loads"] if row["offered"] and row["mix"] == "GET-heavy"]
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    figure = Figure(figsize=(10, 4), layout="constrained")
    tails, distribution = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    most = max(row["clients"] for row in rows)
    for subject, colour in zip(subjects, ("tab:blue", "tab:red", "0.5"), strict=False):
        shown = [row for row in rows if row["subject"] == subject]
        clients = [row["clients"] for row in shown]
        for key, style in (("p99_ns", "-"), ("p50_ns", ":")):
            times = [row[key] / MILLISECOND_NS for row in shown]
            tails.plot(clients, times, style, marker="o", color=colour, label=f"{subject}, {key[:3]}")
        (last,) = (row for row in shown if row["clients"] == most)
        times = [time / MILLISECOND_NS for time in last["times_ns"]]
        distribution.plot(times, results["quantiles"], color=colour, label=subject)
    tails.set_xscale("log")
    tails.set_yscale("log")
    tails.set_xlabel("instances, one for each client")
    tails.set_ylabel("latency from the intended moment, ms")
    distribution.set_xscale("log")
    distribution.set_xlabel(f"latency with {most:,} clients, ms")
    distribution.set_ylabel("share of requests")
    for axes in (tails, distribution):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(bars: Mapping[str, Any]) -> list[str]:
    return ["tab:blue" if name.startswith("FWP") else "0.7" for name in bars]


_DRAWINGS: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "startup": _startup,
    "chain": _chain,
    "memory": _memory,
    "listen": _listen,
    "density": _density,
    "churn": _churn,
    "ports": _ports,
    "scale": _scale,
    "click": _click,
    "memcached": _memcached,
}
