"""Packets' bytes: moved, overwritten, cut, shown."""

from __future__ import annotations

from edgeos.click.arguments import keyword, optional, required
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import ArgumentError, Boolean, Choice, Integer, Text, Unsigned


class Modulus(Integer):
    """2, 4 or 8."""

    @property
    def allowed(self) -> str:
        return "2, 4 or 8"

    def parse(self, text: str) -> int:
        value = super().parse(text)
        if value not in (2, 4, 8):
            raise ArgumentError(f"found {value}; allowed: {self.allowed}")
        return value


class Align(Element):
    """Moves packets so that their first byte lies OFFSET bytes behind a multiple of MODULUS (2, 4 or 8)."""

    ports = "1/1"
    parameters = (required("MODULUS", Modulus(0, 8)), required("OFFSET", Unsigned(7)))
    action = True

    def check(self) -> None:
        if self["OFFSET"] >= self["MODULUS"]:
            raise self.error(f"found {self['OFFSET']}; allowed: less than the modulus, {self['MODULUS']}", "OFFSET")


class StoreData(Element):
    """Overwrites packets with DATA from OFFSET on, as far as they reach."""

    ports = "1/1"
    parameters = (required("OFFSET", Unsigned(65535)), required("DATA", Text(2048)))
    action = True


class Truncate(Element):
    """Cuts packets after LENGTH bytes; EXTRA_LENGTH is taken, and changes nothing."""

    ports = "1/1"
    parameters = (required("LENGTH", Unsigned(65535)), keyword("EXTRA_LENGTH", Boolean(), True))
    action = True


class IPPrint(Element):
    """Keeps a line about the last IP packet, under LABEL, for the handler `last`.

    ID, TTL, TOS, LENGTH, TIMESTAMP, PAINT and AGGREGATE say what stands in it; CONTENTS or PAYLOAD, HEX or ASCII, adds
    up to MAXLENGTH (64, at most 512) bytes.
    """

    ports = "1/1"
    parameters = (
        optional("LABEL", Text(64), b""),
        keyword("CONTENTS", Choice("NONE", "HEX", "ASCII"), "NONE"),
        keyword("PAYLOAD", Choice("NONE", "HEX", "ASCII"), "NONE"),
        keyword("MAXLENGTH", Integer(-1, 512), 64),
        keyword("ID", Boolean(), False),
        keyword("TTL", Boolean(), False),
        keyword("TOS", Boolean(), False),
        keyword("LENGTH", Boolean(), False),
        keyword("TIMESTAMP", Boolean(), True),
        keyword("PAINT", Boolean(), False),
        keyword("AGGREGATE", Boolean(), False),
        keyword("ACTIVE", Boolean(), True),
    )
    action = True
    handlers = (Read("last"), Read("count"), Read("active"), Write("active"))

    def check(self) -> None:
        if self["CONTENTS"] != "NONE" and self["PAYLOAD"] != "NONE":
            raise self.error("found CONTENTS and PAYLOAD; allowed: one of them", "PAYLOAD")

    def defines(self) -> dict[str, str | int]:
        shown = self["CONTENTS"] if self["CONTENTS"] != "NONE" else self["PAYLOAD"]
        most = 512 if self["MAXLENGTH"] < 0 else self["MAXLENGTH"]
        return super().defines() | {
            "SHOWN_MAX": f"{0 if shown == 'NONE' else most}u",
            "IN_HEX": int(shown == "HEX"),
            "PAYLOAD_ALONE": int(self["PAYLOAD"] != "NONE"),
        }
