"""The machine that a benchmark ran on, as far as it explains figures."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

BUSY_LOAD = 0.5
"""Load average from which other work is likely to have disturbed a run."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Processor, kernel and versions; `load` is the load average of the last minute before the run."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    virtual: bool
    root: bool
    load: float
    python: str
    edgeos: str
    wasmtime: str

    def lines(self) -> list[str]:
        """The same for people."""
        kind = "virtual machine" if self.virtual else "machine"
        return [
            f"{self.cpu}, {self.cores} cores usable, {self.memory_bytes / 2**30:.1f} GiB, {kind}, Linux {self.kernel}",
            f"edgeos {self.edgeos}, wasmtime {self.wasmtime}, Python {self.python}, load before the run {self.load:.2f}"
            + (" (other work was running: expect noise)" if self.load >= BUSY_LOAD else ""),
        ]


def this_machine() -> Machine:
    """Describes the machine as it is now."""
    cpuinfo = _read("/proc/cpuinfo")
    return Machine(
        cpu=_found(r"^model name\s*:\s*(.+)$", cpuinfo) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=1024 * int(_found(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo")) or 0),
        kernel=platform.release(),
        virtual=re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None,
        root=os.geteuid() == 0,
        load=os.getloadavg()[0],
        python=platform.python_version(),
        edgeos=metadata.version("edgeos"),
        wasmtime=metadata.version("wasmtime"),
    )


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
