"""The kinds of value that settings hold: each knows what is allowed, reads it from TOML and checks it in a record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeos.endpoint import IP_HINT, PATH_HINT, check_socket_path, is_path, parse_ip_endpoint
from edgeos.findings import BadValueError, listed, nearest, shown, unknown
from edgeos.match import NAME, Match, parse_match
from edgeos.share import share
from edgeos.units import (
    format_byte_rate,
    format_cpu,
    format_duration,
    format_rate,
    format_size,
    parse_byte_rate,
    parse_cpu,
    parse_duration,
    parse_rate,
    parse_size,
)

CONFIG_BYTES_MAX = 16 * 2**20
PATH_BYTES_MAX = 4095  # PATH_MAX of Linux, less the closing NUL
DEVICE_BYTES_MAX = 15  # IFNAMSIZ of Linux, less the closing NUL
LIST_MAX = 256
TAKE_MAX = 32  # kTakeTermsMax of the kernel
QUEUES_MAX = 1024
WORKERS_MAX = 64
VARIABLE = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)


class Kind:
    """What one key may hold."""

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        raise NotImplementedError

    def read(self, raw: object, folder: Path) -> object:
        """The value of a record from the value in TOML; paths are relative to `folder`. Raises BadValueError."""
        self.check(raw)
        return raw

    def check(self, value: object) -> None:
        """Raises BadValueError unless the value of a record is allowed."""
        raise NotImplementedError

    def show(self, value: object) -> str:
        """A value of a record as a user would write it."""
        return shown(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words; those in `api_only` are for programs, not for manifests."""

    words: tuple[str, ...]
    api_only: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        return listed(self.words)

    def read(self, raw: object, folder: Path) -> object:
        return self._one_of(raw, self.words)

    def check(self, value: object) -> None:
        self._one_of(value, self.words + self.api_only)

    def _one_of(self, value: object, words: tuple[str, ...]) -> object:
        if not isinstance(value, str):
            raise BadValueError(shown(value), listed(words))
        if value not in words:
            raise unknown(value, words)
        return value


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number from `low` to `high`, divisible by `multiple`, or a power of two."""

    low: int
    high: int
    note: str = ""
    multiple: int = 1
    power_of_two: bool = False

    @property
    def allowed(self) -> str:
        steps = f", a multiple of {self.multiple}" if self.multiple > 1 else ", a power of two" * self.power_of_two
        note = f" ({self.note})" if self.note else ""
        return (str(self.low) if self.low == self.high else f"{self.low} to {self.high}") + steps + note

    def check(self, value: object) -> None:
        fits = isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
        if not fits or not isinstance(value, int) or value % self.multiple:
            raise BadValueError(shown(value), self.allowed)
        if self.power_of_two and value & (value - 1):
            raise BadValueError(shown(value), self.allowed)


@dataclass(frozen=True)
class Quantity(Kind):
    """A number with a unit, kept in the smallest one; `none` says that 0, which then needs no unit, means none."""

    low: int
    high: int
    parse: Callable[[object], int]
    format: Callable[[int], str]
    multiple: int = 1
    none: bool = False

    @property
    def allowed(self) -> str:
        steps = f", a multiple of {self.format(self.multiple)}" if self.multiple > 1 else ""
        return f"{self.format(self.low)} to {self.format(self.high)}{steps}" + ', or "0" for none' * self.none

    def read(self, raw: object, folder: Path) -> object:
        if self.none and (raw == "0" or (raw == 0 and not isinstance(raw, bool))):
            return 0
        value = self.parse(raw)
        self._check_range(value, shown(raw))
        return value

    def check(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadValueError(shown(value), self.allowed)
        self._check_range(value, self.format(value) if abs(value) <= self.high else shown(value))

    def show(self, value: object) -> str:
        if self.none and value == 0:
            return '"0"'
        return f'"{self.format(value)}"' if isinstance(value, int) else shown(value)

    def _check_range(self, value: int, found: str) -> None:
        if self.none and value == 0:
            return
        if not self.low <= value <= self.high or value % self.multiple:
            raise BadValueError(found, self.allowed)


def duration(low_ns: int, high_ns: int, *, none: bool = False) -> Quantity:
    """A duration in nanoseconds, written as "30s"."""
    return Quantity(low_ns, high_ns, parse_duration, format_duration, none=none)


def size(low: int, high: int, multiple: int, *, none: bool = False) -> Quantity:
    """A size in bytes, written as "64KiB" or 65536."""
    return Quantity(low, high, parse_size, format_size, multiple, none)


def rate(high: int) -> Quantity:
    """So many a second, written as "1000/s"; 0 for none."""
    return Quantity(1, high, parse_rate, format_rate, none=True)


def byte_rate(low: int, high: int) -> Quantity:
    """Bytes a second, written as "100MB/s"; 0 for none."""
    return Quantity(low, high, parse_byte_rate, format_byte_rate, none=True)


def cpu_share(low_ns: int, high_ns: int) -> Quantity:
    """CPU time in a second, nanoseconds, written as "25%" of one core; 0 for none."""
    return Quantity(low_ns, high_ns, parse_cpu, format_cpu, none=True)


class Flag(Kind):
    """true or false."""

    allowed = "true or false"

    def check(self, value: object) -> None:
        if not isinstance(value, bool):
            raise BadValueError(shown(value), self.allowed)


class Name(Kind):
    """The name of a port, template or chain."""

    allowed = "1 to 32 letters, digits, - and _"

    def check(self, value: object) -> None:
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise BadValueError(shown(value), self.allowed)


@dataclass(frozen=True)
class Texts(Kind):
    """A list of words; what they mean is checked where they are used."""

    what: str

    @property
    def allowed(self) -> str:
        return f"a list of 1 to {LIST_MAX} {self.what}"

    def read(self, raw: object, folder: Path) -> object:
        if not isinstance(raw, list) or not raw:
            raise BadValueError(shown(raw), self.allowed)
        value = tuple(raw)
        self.check(value)
        return value

    def check(self, value: object) -> None:
        if not isinstance(value, tuple) or len(value) > LIST_MAX:
            raise BadValueError(shown(value), self.allowed)
        for word in value:
            if not isinstance(word, str):
                raise BadValueError(f"{shown(word)} in the list", self.allowed)


class Device(Kind):
    """The name of a network device, by the rules of Linux (dev_valid_name)."""

    allowed = f"1 to {DEVICE_BYTES_MAX} characters without space, / and :"

    def check(self, value: object) -> None:
        if not isinstance(value, str) or not self._valid(value):
            raise BadValueError(shown(value), self.allowed)

    @staticmethod
    def _valid(name: str) -> bool:
        length = len(name.encode("utf-8", "surrogatepass"))
        return (
            1 <= length <= DEVICE_BYTES_MAX
            and name.isprintable()
            and not set(name) & set("/:%")
            and not any(c.isspace() for c in name)
            and name not in (".", "..")
        )


class SocketAddress(Kind):
    """An IP address with a port, or the path of a Unix socket, relative to the manifest; which one, the slash tells."""

    allowed = f"{IP_HINT}; or {PATH_HINT}"

    def read(self, raw: object, folder: Path) -> object:
        if not isinstance(raw, str) or not raw:
            raise BadValueError(shown(raw), self.allowed)
        if not is_path(raw):
            self.check(raw)
            return raw
        check_socket_path(raw)
        # Not as a Path, which drops the leading "./" that makes a name a path.
        value = raw if folder == Path() else str(folder / raw)
        check_socket_path(value)
        return value

    def check(self, value: object) -> None:
        if not isinstance(value, str) or not value:
            raise BadValueError(shown(value), self.allowed)
        if is_path(value):
            check_socket_path(value)
        else:
            parse_ip_endpoint(value)


class Permissions(Kind):
    """Permissions of a file, as chmod writes them: "0660", or 0o660 in TOML."""

    allowed = 'permissions in octal, "0000" to "0777"'

    def read(self, raw: object, folder: Path) -> object:
        if isinstance(raw, str):
            if not (1 <= len(raw) <= 4 and set(raw) <= set("01234567")):
                raise BadValueError(shown(raw), self.allowed)
            raw = int(raw, 8)
        self.check(raw)
        return raw

    def check(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
            raise BadValueError(shown(value), self.allowed)

    def show(self, value: object) -> str:
        return f'"{value:04o}"' if isinstance(value, int) else shown(value)


@dataclass(frozen=True)
class Table(Kind):
    """A table of keys of its own, read and checked as one; `record` is its type."""

    record: type
    keys: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"a table with {listed(self.keys)}"

    def check(self, value: object) -> None:
        if not isinstance(value, self.record):
            raise BadValueError(shown(value), f"a record of type {self.record.__name__}")


class MatchText(Kind):
    """A match, see `edgeos.match`."""

    allowed = 'a match such as "ip" or "udp dst port 53"'

    def read(self, raw: object, folder: Path) -> object:
        if not isinstance(raw, str):
            raise BadValueError(shown(raw), self.allowed)
        return parse_match(raw)

    def check(self, value: object) -> None:
        if not isinstance(value, Match):
            raise BadValueError(shown(value), "what parse_match returns")


class MatchTexts(Kind):
    """Matches of single packets, any of which may hold: one text or a list."""

    allowed = f'a match such as "udp dst port 53", or a list of up to {TAKE_MAX}'

    def read(self, raw: object, folder: Path) -> object:
        texts = raw if isinstance(raw, list) else [raw]
        if not texts:
            raise BadValueError(shown(raw), self.allowed)
        matches = tuple(self._match(text) for text in texts)
        self.check(matches)
        return matches

    def _match(self, text: object) -> Match:
        if not isinstance(text, str):
            raise BadValueError(shown(text), self.allowed)
        return parse_match(text)

    def check(self, value: object) -> None:
        if not isinstance(value, tuple) or not all(isinstance(match, Match) for match in value):
            raise BadValueError(shown(value), "a tuple of what parse_match returns")
        if len(value) > TAKE_MAX:
            raise BadValueError(f"{len(value)} matches", self.allowed)
        for match in value:
            if match.port is not None:
                raise BadValueError(f'"from {match.port}"', "no from: the packets are those of this port")
            if match.server_name is not None:
                raise BadValueError(f'"sni {match.server_name}"', "no sni: packets are not put together to connections")


class Queues(Kind):
    """The number of a device's queue, or "all", which records hold as None."""

    allowed = f'"all", or the number of a queue: 0 to {QUEUES_MAX - 1}'

    def read(self, raw: object, folder: Path) -> object:
        if raw == "all":
            return None
        self._check_number(raw)
        return raw

    def check(self, value: object) -> None:
        if value is not None:
            self._check_number(value)

    def show(self, value: object) -> str:
        return '"all"' if value is None else shown(value)

    def _check_number(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < QUEUES_MAX:
            raise BadValueError(shown(value), self.allowed)


class Workers(Kind):
    """A number of worker processes, or "auto", which records hold as 0."""

    allowed = f'"auto", or 1 to {WORKERS_MAX}'

    def read(self, raw: object, folder: Path) -> object:
        if raw == "auto":
            return 0
        if raw == 0:
            raise BadValueError(shown(raw), self.allowed)
        self.check(raw)
        return raw

    def check(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= WORKERS_MAX:
            raise BadValueError(shown(value), self.allowed)

    def show(self, value: object) -> str:
        return '"auto"' if value == 0 else shown(value)


class InputFile(Kind):
    """A file that must be there and readable."""

    allowed = "a file that can be read"

    def read(self, raw: object, folder: Path) -> object:
        path = _path(raw, folder, self.allowed)
        self._check_file(path, shown(raw))
        return path

    def check(self, value: object) -> None:
        if not isinstance(value, Path):
            raise BadValueError(shown(value), "a pathlib.Path")
        _check_encoding(value, shown(str(value)))
        self._check_file(value, shown(str(value)))

    def _check_file(self, path: Path, found: str) -> None:
        try:
            path.stat()
        except FileNotFoundError:
            raise BadValueError(f"{found}, which does not exist", self.allowed, _nearest_file(path)) from None
        except (OSError, ValueError) as error:
            raise BadValueError(f"{found}: {_reason(error)}", self.allowed) from None
        if path.is_dir():
            raise BadValueError(f"{found}, a folder", self.allowed)
        if not os.access(path, os.R_OK):
            raise BadValueError(f"{found}, which may not be read", self.allowed)


class OutputFile(InputFile):
    """A file to be written; its folder must be there."""

    allowed = "a file in a folder that can be written to"

    def _check_file(self, path: Path, found: str) -> None:
        try:
            if path.is_dir():
                raise BadValueError(f"{found}, a folder", self.allowed)
            if not path.parent.is_dir():
                raise BadValueError(f"{found}, whose folder does not exist", self.allowed)
            writable = os.access(path if path.exists() else path.parent, os.W_OK)
        except (OSError, ValueError) as error:
            raise BadValueError(f"{found}: {_reason(error)}", self.allowed) from None
        if not writable:
            raise BadValueError(f"{found}, which may not be written", self.allowed)


class Config(Kind):
    """The configuration of a guest: text in the manifest, bytes in the record."""

    allowed = f"text of at most {format_size(CONFIG_BYTES_MAX)}"

    def read(self, raw: object, folder: Path) -> object:
        if not isinstance(raw, str):
            raise BadValueError(shown(raw), self.allowed)
        try:
            value = raw.encode()
        except UnicodeEncodeError:
            raise BadValueError(shown(raw), "Unicode text") from None
        self.check(value)
        return value

    def check(self, value: object) -> None:
        if not isinstance(value, bytes):
            raise BadValueError(shown(value), "bytes")
        if len(value) > CONFIG_BYTES_MAX:
            raise BadValueError(format_size(len(value)), self.allowed)

    def show(self, value: object) -> str:
        return '""' if value == b"" else shown(value)


class ConfigFile(InputFile):
    """A file whose content is the configuration."""

    def read(self, raw: object, folder: Path) -> object:
        path = super().read(raw, folder)
        assert isinstance(path, Path)
        try:
            with path.open("rb") as file:
                content = file.read(CONFIG_BYTES_MAX + 1)
        except OSError as error:
            raise BadValueError(f"{shown(raw)}: {_reason(error)}", self.allowed) from None
        if len(content) > CONFIG_BYTES_MAX:
            raise BadValueError(f"{shown(raw)}, a larger file", f"at most {format_size(CONFIG_BYTES_MAX)}")
        return content

    def show(self, value: object) -> str:
        return ""  # the default is that of the key config


class Definitions(Kind):
    """Values of variables by their names: text, or whole numbers, which become text."""

    allowed = 'a table of variables, { NAME = "value", … }'

    def read(self, raw: object, folder: Path) -> object:
        if not isinstance(raw, dict):
            raise BadValueError(shown(raw), self.allowed)
        whole = {name: str(value) for name, value in raw.items() if type(value) is int}
        value = {**raw, **whole}
        self.check(value)
        return value

    def check(self, value: object) -> None:
        if not isinstance(value, Mapping):
            raise BadValueError(shown(value), "a mapping of names to text")
        for name, text in value.items():
            if not isinstance(name, str) or not VARIABLE.fullmatch(name):
                raise BadValueError(f"the name {shown(name)}", "letters, digits and _, no digit first")
            if not isinstance(text, str):
                raise BadValueError(f"{name} = {shown(text)}", "text or whole numbers")

    def show(self, value: object) -> str:
        return "" if not value else shown(value)


class Appliance(Kind):
    """The name of an appliance that ships with edgeos."""

    @property
    def allowed(self) -> str:
        return listed(self.names()) or "nothing: no appliance is installed"

    @staticmethod
    def names() -> list[str]:
        """The appliances there are: folders with a C source of the same name."""
        return sorted(source.stem for source in share("appliances").glob("*/*.c") if source.parent.name == source.stem)

    def check(self, value: object) -> None:
        if not isinstance(value, str):
            raise BadValueError(shown(value), self.allowed)
        if value not in self.names():
            raise unknown(value, self.names(), self.allowed)


def _path(raw: object, folder: Path, allowed: str) -> Path:
    if not isinstance(raw, str) or not raw:
        raise BadValueError(shown(raw), allowed)
    path = folder / raw
    _check_encoding(path, shown(raw))
    return path


def _check_encoding(path: Path, found: str) -> None:
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise BadValueError(found, "a path in Unicode") from None
    if b"\0" in encoded or len(encoded) > PATH_BYTES_MAX:
        raise BadValueError(found, f"a path of at most {PATH_BYTES_MAX} bytes, without NUL")


def _nearest_file(path: Path) -> str:
    try:
        return nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except (OSError, ValueError):
        return ""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a path"
