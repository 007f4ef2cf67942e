"""Packets of the guest's own. A source begins with the first message that its client sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from edgeos.click.arguments import keyword, optional
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import Bandwidth, Boolean, Integer, Seconds, Text, Unsigned, literal

SECOND_NS = 1_000_000_000
LENGTH = Integer(-1, 2048)
LIMIT = Integer(-1)
DATA = Text(2048)
DATA_DEFAULT = b"These bytes fill a packet that was made within a configuration; it has 80 of them"[:80]
HANDLERS = (Read("count"), Read("limit"), Write("limit"), Read("active"), Write("active"), Write("reset"))


class _Source(Element):
    """Makes packets that hold DATA, cut or filled with zeros to LENGTH."""

    ports = ""
    handlers: ClassVar[Sequence[Read | Write]] = HANDLERS

    @property
    def timer(self) -> bool:
        return True

    @property
    def packets(self) -> int:
        return 1

    def defines(self) -> dict[str, str | int]:
        length = self["LENGTH"]
        data = self["DATA"] if length < 0 else self["DATA"][:length].ljust(length, b"\0")
        constants = super().defines()
        return constants | {"CONTENT": literal(data), "CONTENT_LEN": f"{len(data)}u"}


class InfiniteSource(_Source):
    """Makes packets as fast as they are taken, BURST (1) at a time, LIMIT (-1: no limit) in all.

    They hold DATA, cut or filled to LENGTH. STOP and TIMESTAMP are taken, and change nothing.
    """

    ports = "0/1"
    processing = "/a"
    parameters = (
        optional("DATA", DATA, DATA_DEFAULT),
        optional("LIMIT", LIMIT, -1),
        optional("BURST", Unsigned(256, 1), 1),
        optional("ACTIVE", Boolean(), True),
        keyword("LENGTH", LENGTH, -1),
        keyword("STOP", Boolean(), False),
        keyword("TIMESTAMP", Boolean(), True),
    )

    @property
    def task(self) -> bool:
        return self.pushes_out[0]

    @property
    def packets(self) -> int:
        return int(self["BURST"])


class RatedSource(_Source):
    """Makes RATE (10) packets a second, or BANDWIDTH of them, LIMIT (-1: no limit) in all.

    They hold DATA, cut or filled to LENGTH. STOP is taken, and changes nothing.
    """

    ports = "0/1"
    processing = "/a"
    parameters = (
        optional("DATA", DATA, DATA_DEFAULT),
        optional("RATE", Unsigned(10**9, 1), 10),
        optional("LIMIT", LIMIT, -1),
        optional("ACTIVE", Boolean(), True),
        keyword("LENGTH", LENGTH, -1),
        keyword("BANDWIDTH", Bandwidth(1)),
        keyword("STOP", Boolean(), False),
    )
    headers = ("rate.h",)
    handlers = (*HANDLERS, Read("rate"), Write("rate"))

    @property
    def task(self) -> bool:
        return self.pushes_out[0]

    def defines(self) -> dict[str, str | int]:
        constants = super().defines()
        if self["BANDWIDTH"] is not None:
            length = len(self["DATA"]) if self["LENGTH"] < 0 else self["LENGTH"]
            constants["ARG_RATE"] = f"{max(1, self['BANDWIDTH'] // max(1, length))}u"
        return constants


class TimedSource(_Source):
    """Makes a packet every INTERVAL (0.5) seconds, LIMIT (-1: no limit) in all.

    They hold DATA. HEADROOM and STOP are taken, and change nothing.
    """

    ports = "0/1"
    processing = "/h"
    parameters = (
        optional("INTERVAL", Seconds(SECOND_NS // 1000), SECOND_NS // 2),
        optional("DATA", DATA, DATA_DEFAULT),
        keyword("LIMIT", LIMIT, -1),
        keyword("LENGTH", LENGTH, -1),
        keyword("ACTIVE", Boolean(), True),
        keyword("HEADROOM", Unsigned(1024)),
        keyword("STOP", Boolean(), False),
    )
    handlers = (*HANDLERS, Read("interval"), Write("interval"))

    @property
    def task(self) -> bool:
        return True
