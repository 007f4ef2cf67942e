"""Where a result goes: to the terminal, as JSON, as a plot. What can fail is tried before the benchmark runs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from edgeos.bench.result import Result
from edgeos.errors import EdgeosError
from edgeos.terminal import console, require_writable


@dataclass(frozen=True, kw_only=True)
class Output:
    """The files that the user asked for. With "-" as `json_file`, JSON goes to stdout and the table to stderr."""

    json_file: str | None
    plot_file: Path | None

    def check(self) -> None:
        """Raises EdgeosError or a usage error if a result could not be written."""
        if self.json_file not in (None, "-"):
            require_writable(Path(str(self.json_file)), "--json")
        if self.plot_file is not None:
            require_writable(self.plot_file, "--plot")
            if util.find_spec("matplotlib") is None:
                raise EdgeosError("--plot needs matplotlib, which is not installed: pip install 'edgeos[bench]'")

    def write(self, result: Result) -> None:
        """Prints the result and writes the files. Raises EdgeosError."""
        console(stderr=self.json_file == "-").print(result.report())
        if self.json_file is not None:
            self._write_json(result)
        if self.plot_file is not None:
            from edgeos.bench.plot import save  # noqa: PLC0415  (matplotlib is optional)

            save(result, self.plot_file)

    def _write_json(self, result: Result) -> None:
        text = json.dumps(result.as_dict(), indent=2) + "\n"
        if self.json_file == "-":
            sys.stdout.write(text)
            return
        try:
            Path(str(self.json_file)).write_text(text, encoding="utf-8")
        except OSError as error:
            raise EdgeosError(f"{self.json_file} cannot be written: {error.strerror}") from None
