"""From a TOML manifest to settings, with everything that is wrong with it said at once.

A finding is one line, `file: key: found …; allowed: …; did you mean …?`. Settings made by a program go through the same
checks, see `check_settings`. Which keys there are stands in `edgeos.schema`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeos.consistency import check_consistency, find_warnings, missing_devices, named_records, rule_table, tables
from edgeos.errors import ManifestError
from edgeos.findings import BadValueError, Findings, printable, quoted, shown, unknown
from edgeos.kinds import Kind, Name, Table
from edgeos.schema import ANY, INNER, RECORDS, SECTIONS, Section
from edgeos.settings import Manifest, NodeSettings, RuleSettings

__all__ = ["check_settings", "find_warnings", "load_manifest", "missing_devices", "parse_manifest"]

MANIFEST_BYTES_MAX = 64 * 2**20


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Reads and checks a manifest file. Raises ManifestError with every finding."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MANIFEST_BYTES_MAX + 1)
        if len(content) > MANIFEST_BYTES_MAX:
            raise BadValueError("a larger file", f"at most {MANIFEST_BYTES_MAX} bytes")
        data = tomllib.loads(content.decode("utf-8-sig"))
    except (BadValueError, OSError, ValueError, RecursionError) as error:
        raise ManifestError([f"{printable(str(path))}: {_why_unreadable(error)}"]) from None
    return parse_manifest(data, path)


def parse_manifest(data: Mapping[str, Any], path: Path | None = None) -> Manifest:
    """Settings from a manifest's tables, as `tomllib` reads them. Paths in it are relative to the folder of `path`.

    Raises ManifestError with every finding.
    """
    findings = Findings(path)
    reader = _Reader(findings, path.parent if path else Path())
    manifest = reader.read(data, path)
    check_consistency(findings, manifest, reader.names)
    findings.raise_if_any()
    return manifest


def check_settings(manifest: Manifest) -> None:
    """Checks settings that a program made just as those of a manifest. Raises ManifestError with every finding."""
    findings = Findings(manifest.path)
    for table, record in tables(manifest):
        section = RECORDS[type(record)]
        defaults = {field.name: field.default for field in fields(record)}
        # Of two keys for one attribute (config, config_file) the first describes the record.
        for target, field in {field.target: field for field in reversed(section.fields)}.items():
            value = getattr(record, target)
            if value is None and defaults[target] is None:
                continue
            try:
                field.kind.check(value)
            except BadValueError as problem:
                findings.report(table, field.key, problem, target)
    names = {title: [str(record.name) for record in records] for title, records in named_records(manifest).items()}
    for title, declared in names.items():
        for name, count in Counter(declared).items():
            _check_name(findings, title, name)
            if count > 1:
                findings.report(f"{title}.{quoted(name)}", "", BadValueError(f"{count} of this name", "one"))
    check_consistency(findings, manifest, names)
    findings.raise_if_any()


class _Reader:
    """Turns tables into records; defaults and stand-ins replace what is missing or bad, so that the rest is checked."""

    def __init__(self, findings: Findings, folder: Path) -> None:
        self.findings = findings
        self.folder = folder
        self.names: dict[str, list[str]] = {"port": [], "upstream": [], "template": [], "chain": [], "tenant": []}

    def read(self, data: Mapping[str, Any], path: Path | None) -> Manifest:
        for key in data:
            if key not in SECTIONS:
                self.findings.report(quoted(key), "", unknown(key, SECTIONS))
        records: dict[str, Any] = {title: self._named(title, data.get(title, {})) for title in self.names}
        return Manifest(
            path=path,
            node=self._table("node", SECTIONS["node"], data.get("node", {})) or NodeSettings(),
            ports=records["port"],
            upstreams=records["upstream"],
            templates=records["template"],
            chains=records["chain"],
            tenants=records["tenant"],
            rules=self._rules(data.get("rule", [])),
            unmatched=self._table("unmatched", SECTIONS["unmatched"], data["unmatched"])
            if "unmatched" in data
            else None,
        )

    def _named(self, title: str, raw: object) -> tuple[Any, ...]:
        if not isinstance(raw, dict):
            self.findings.report(title, "", BadValueError(shown(raw), f"tables, [{title}.NAME]"))
            return ()
        records = []
        for name, table in raw.items():
            self.names[title].append(name)
            _check_name(self.findings, title, name)
            if isinstance(table, dict):
                records.append(self._table(f"{title}.{quoted(name)}", SECTIONS[title], table, name=name))
            else:
                problem = BadValueError(shown(table), f"a table, [{title}.NAME]")
                self.findings.report(f"{title}.{quoted(name)}", "", problem)
        return tuple(record for record in records if record is not None)

    def _rules(self, raw: object) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            self.findings.report("rule", "", BadValueError(shown(raw), "a list of tables, each [[rule]]"))
            return ()
        # One record for each table, whatever it holds, so that the numbers of the others stay right.
        stand_in = RuleSettings(match=ANY, drop=True)
        return tuple(
            self._table(rule_table(number), SECTIONS["rule"], rule) or stand_in for number, rule in enumerate(raw, 1)
        )

    def _table(self, table: str, section: Section, raw: object, **values: Any) -> Any:
        """The record of one table; None if it is no table."""
        if not isinstance(raw, dict):
            self.findings.report(table, "", BadValueError(shown(raw), "a table"))
            return None
        for key in raw:
            if key not in section.keys:
                self.findings.report(table, quoted(key), unknown(key, section.keys))
        for field in section.fields:
            try:
                if field.key in raw:
                    if field.target in values:
                        raise BadValueError(f"{field.key} beside {field.target}", "one of the two")
                    values[field.target] = self._value(f"{table}.{field.key}", field.kind, raw[field.key])
                elif field.required:
                    raise BadValueError("nothing", field.kind.allowed, "the key is required")
            except BadValueError as problem:
                self.findings.report(table, field.key, problem, field.target)
                if field.required:
                    values[field.target] = field.stand_in
        return section.record(**values)

    def _value(self, table: str, kind: Kind, raw: object) -> object:
        if not isinstance(kind, Table):
            return kind.read(raw, self.folder)
        if not isinstance(raw, dict):
            raise BadValueError(shown(raw), kind.allowed)
        return self._table(table, INNER[kind.record], raw)


def _check_name(findings: Findings, title: str, name: str) -> None:
    try:
        Name().check(name)
    except BadValueError as problem:
        findings.report(f"{title}.{quoted(name)}", "", problem)


_TOML_PLACE = re.compile(r"(.*) \(at (.*)\)", re.DOTALL)


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, BadValueError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "found no such file; allowed: a manifest in TOML"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}; allowed: a manifest in TOML"
    if isinstance(error, UnicodeDecodeError):
        return f"found byte 0x{error.object[error.start]:02x} at offset {error.start}; allowed: UTF-8 text"
    if isinstance(error, RecursionError):
        return "found brackets nested too deep; allowed: a manifest in TOML"
    place = _TOML_PLACE.fullmatch(str(error))
    what, where = place.groups() if place else (str(error), "TOML")
    return f"{where}: {printable(what)[:200]}; allowed: a manifest in TOML"
