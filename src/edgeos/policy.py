"""The Python function that decides about clients which no rule matches, as a manifest names it: "policy.py:decide".

The file's text is read with the manifest and belongs to it, so that all workers run the same one, also those that start
later. What can be known without running it is checked with the manifest; it runs where a node is made.
"""

from __future__ import annotations

import importlib.util
import symtable
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

from edgeos.findings import BadValueError, listed, nearest, printable, shown
from edgeos.kinds import InputFile
from edgeos.settings import PolicyFunction
from edgeos.units import format_size

SOURCE_BYTES_MAX = 2**20
MODULE = "edgeos_policy"
"""The name of the file's module while it runs, in which records, for one, look for it."""


class Policy(InputFile):
    """A function of a Python file."""

    allowed = f'"FILE.py:FUNCTION", a function of a Python file of at most {format_size(SOURCE_BYTES_MAX)}'

    def read(self, raw: object, folder: Path) -> object:
        name, _, function = raw.rpartition(":") if isinstance(raw, str) else ("", "", "")
        if not name or not function.isidentifier():
            raise BadValueError(shown(raw), self.allowed)
        path = super().read(name, folder)
        assert isinstance(path, Path)
        value = PolicyFunction(path=path, source=self._source(path), function=function)
        self.check(value)
        return value

    def _source(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                content = file.read(SOURCE_BYTES_MAX + 1)
            if len(content) > SOURCE_BYTES_MAX:
                raise BadValueError(f"{shown(path.name)}, a larger file", self.allowed)
            return importlib.util.decode_source(content)
        except OSError as error:
            raise BadValueError(f"{shown(path.name)}: {error.strerror}", self.allowed) from None
        except (SyntaxError, ValueError):
            raise BadValueError(f"{shown(path.name)}, which is no text", "a Python file, in UTF-8") from None

    def check(self, value: object) -> None:
        if not isinstance(value, PolicyFunction):
            raise BadValueError(shown(value), "a PolicyFunction")
        names = _top_level_names(value)
        if value.function not in names:
            found = f"{shown(value.function)}, which {shown(value.path.name)} does not define or import by name"
            raise BadValueError(found, listed(names) or "a function, but there is none", nearest(value.function, names))


def load_function(policy: PolicyFunction) -> Callable[..., object]:
    """Runs the file and takes its function. Raises BadValueError with what the file raised, and where."""
    module = ModuleType(MODULE)
    module.__file__ = str(policy.path)
    before = sys.modules.get(MODULE)
    sys.modules[MODULE] = module
    try:
        exec(_compiled(policy), vars(module))
    except BaseException as error:
        _put_back(before)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise _what_it_raised(policy, error) from None
    function = getattr(module, policy.function, None)
    if not callable(function):
        _put_back(before)
        raise BadValueError(f"{shown(policy.function)}, which is {shown(function)}", "a function")
    return cast("Callable[..., object]", function)


def _top_level_names(policy: PolicyFunction) -> list[str]:
    """What the file defines or imports by name, without running it."""
    try:
        _compiled(policy)
        table = symtable.symtable(policy.source, str(policy.path), "exec")
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        found = f"{shown(policy.path.name)}, which is no Python: {where}{printable(str(error.msg))}"
        raise BadValueError(found, "a Python file", "mend that line" if where else "") from None
    except (ValueError, RecursionError, MemoryError) as error:
        found = f"{shown(policy.path.name)}, which is no Python: {printable(str(error))}"
        raise BadValueError(found, "a Python file") from None
    return [s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()]


def _compiled(policy: PolicyFunction) -> CodeType:
    return compile(policy.source, str(policy.path), "exec", dont_inherit=True)


def _put_back(module: ModuleType | None) -> None:
    if module is None:
        del sys.modules[MODULE]
    else:
        sys.modules[MODULE] = module


def _what_it_raised(policy: PolicyFunction, error: BaseException) -> BadValueError:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(policy.path)]
    where = f" in line {lines[-1]}" if lines else ""
    what = printable(f"{type(error).__name__}: {error}")[:200]
    return BadValueError(
        f"{shown(policy.path.name)}, which ends with {what}{where} when it is loaded",
        "a Python file that can be loaded",
    )
