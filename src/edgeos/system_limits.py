"""Whether the system lets a node have what its manifest may need: found at the start, with the fix for each shortage.

What a node takes is bounded by its manifest, so that it can be worked out before anything is made. A node that the
system has no room for is refused whole: the Wasm engine would end the process when it ran into the limit later.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeos.descriptors import require_descriptors
from edgeos.errors import LimitError
from edgeos.settings import Manifest
from edgeos.units import format_size

GUARD_FWPS_MAX = 256
"""With `memory = "auto"`, memories lie 4 GiB apart (quicker code) up to so many FWPs, and close together beyond."""

MAPPINGS_COMPACT = 2
"""Memory mappings of one FWP whose memory lies close to others': what it uses, and what it may grow into."""

MAPPINGS_GUARD = 4
"""With memories 4 GiB apart: the checkpoint's image and the parts around it too."""

MAPPINGS_SPARE = 4096
"""For all else: libraries, threads, ports, what is allocated."""

TOUCHED_BYTES = 16 * 1024
"""Memory that an FWP takes at the least once it has handled a message."""

FLOW_BYTES = 96
"""Of the flow table, for each entry and its places in the index."""

CAP_IPC_LOCK = 14  # linux/capability.h


@dataclass(frozen=True, kw_only=True)
class System:
    """What this process may have. Memory is that of the machine or, if less, of its control group; None is no limit."""

    mappings: int
    memory: int
    locked: int | None


def this_system() -> System:
    """The limits as they are now."""
    maps = Path("/proc/sys/vm/max_map_count")
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = _has_capability(CAP_IPC_LOCK) or resource.RLIM_INFINITY in (soft, hard)
    return System(
        mappings=int(maps.read_text()) if maps.exists() else 65530,
        memory=min(_machine_memory(), *_group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))),
        locked=None if unlimited else hard,
    )


def fwps_of(manifest: Manifest) -> int:
    """FWPs that may exist at once: those of all chains at their limits and of all pools, and room for later ones."""
    of_chains = sum(chain.max_fwps for chain in manifest.chains)
    return of_chains + sum(t.ready_high for t in manifest.templates) + manifest.node.spare_fwps + 1


def fwps_allowed(manifest: Manifest) -> int:
    """How many FWPs the system's limit of memory mappings allows."""
    return (this_system().mappings - MAPPINGS_SPARE) // _mappings_each(manifest)


def is_compact(manifest: Manifest) -> bool:
    """True if memories lie close together, False if 4 GiB apart."""
    few = fwps_of(manifest) <= GUARD_FWPS_MAX
    return manifest.node.memory == "compact" or (manifest.node.memory == "auto" and not few)


def require_system(manifest: Manifest, *, locked_bytes: int = 0) -> None:
    """Raises LimitError with every shortage, one a line. `locked_bytes` is packet memory that AF_XDP ports share.

    Raises this process's own soft limits as far as the node needs.
    """
    problems = list(find_shortages(manifest, this_system(), locked_bytes=locked_bytes))
    try:
        require_descriptors(manifest)
    except LimitError as error:
        problems.append(str(error))
    if problems:
        raise LimitError("\n".join(problems))


def find_shortages(manifest: Manifest, system: System, *, locked_bytes: int = 0) -> Iterator[str]:
    """What the node needs and the system does not give, each with the command that changes it."""
    fwps = fwps_of(manifest)
    mappings = fwps * _mappings_each(manifest) + MAPPINGS_SPARE
    if mappings > system.mappings:
        compact = "" if is_compact(manifest) else ', set node.memory = "compact"'
        yield (
            f"{fwps} FWPs need up to {mappings} memory mappings, this system allows {system.mappings}; "
            f"lower max_fwps{compact}, or as root: sysctl -w vm.max_map_count={mappings}"
        )
    memory = fwps * TOUCHED_BYTES + (manifest.node.max_flows + fwps) * FLOW_BYTES
    if memory > system.memory:
        yield (
            f"{fwps} FWPs and {manifest.node.max_flows} flows take at least {_rounded(memory)} of memory, there is "
            f"{_rounded(system.memory)}; lower max_fwps, ready_high or max_flows, or raise MemoryMax= of the systemd "
            "unit"
        )
    if system.locked is not None and locked_bytes > system.locked:
        yield (
            f"the AF_XDP ports lock {_rounded(locked_bytes)} of memory, this process may lock "
            f"{_rounded(system.locked)}; use fewer queues, or as root: ulimit -Hl {-(-locked_bytes // 1024)} in the "
            "shell that starts edgeos, or LimitMEMLOCK=infinity in its systemd unit"
        )


def _mappings_each(manifest: Manifest) -> int:
    return MAPPINGS_COMPACT if is_compact(manifest) else MAPPINGS_GUARD


def _rounded(size: int) -> str:
    unit = next(unit for unit in (2**30, 2**20, 2**10) if size >= unit or unit == 2**10)
    return format_size(-(-size // unit) * unit)


def _machine_memory() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemTotal"].split()[0]) * 1024


def _group_limits(membership: Path, root: Path) -> Sequence[int]:
    """The limits of memory of this process's control group (version 2) and of those around it."""
    unlimited = [2**63]
    lines = membership.read_text().splitlines() if membership.exists() else []
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        return unlimited
    folder = root / path.lstrip("/")
    files = [group / "memory.max" for group in (folder, *folder.parents) if group.is_relative_to(root)]
    texts = [file.read_text().strip() for file in files if file.exists()]
    return unlimited + [int(text) for text in texts if text.isdigit()]


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> number & 1)
