"""Rates of packets and bytes: limited, told apart, measured."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from edgeos.click.arguments import keyword, optional, required, rest
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import Bandwidth, Boolean, Choice, Real, Seconds, Unsigned

SECOND_NS = 1_000_000_000
BURST_NS = SECOND_NS // 50
"""What a bucket holds where nothing else is said: 20 ms of its rate."""

RATE = Unsigned(10**9, 1)
BANDWIDTH = Bandwidth(1, 2**32)
TOKENS = Unsigned(10**9, 1)


class _Bucket(Element):
    """An element with a token bucket; CAPACITY is at rest what BURST arguments say, else 20 ms of the rate."""

    ports = ""
    headers = ("rate.h",)
    bytes_count = False
    handlers: ClassVar[Sequence[Read | Write]] = (Read("rate"), Write("rate"), Write("reset"))

    @property
    def timer(self) -> bool:
        return True

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {
            "CAPACITY(rate)": self.capacity(),
            "COST(p)": "(p)->len" if self.bytes_count else "1",
            "LEAST": "1" if self.bytes_count else "CLICK_TOKEN",
            "RATE_MAX": f"{(BANDWIDTH if self.bytes_count else RATE).max}ull",
        }

    def capacity(self) -> str:
        """C for the tokens that the bucket holds at a rate."""
        return "((rate) / 50 ? (rate) / 50 : 1)"


class _Unqueue(_Bucket):
    """Pulls at a rate and pushes."""

    ports = ""
    processing = "l/h"
    handlers = (*_Bucket.handlers, Read("active"), Write("active"), Read("count"))
    template = "rated_unqueue.h"

    @property
    def task(self) -> bool:
        return True

    def burst(self) -> int | None:
        """The bucket's size in tokens where it is given."""
        raise NotImplementedError

    def check(self) -> None:
        if self["BURST_DURATION"] is not None and self.burst() is not None:
            raise self.error("found two sizes of the bucket; allowed: one of them", "BURST_DURATION")

    def capacity(self) -> str:
        if self.burst() is not None:
            return f"{self.burst()}ull"
        share = Fraction(BURST_NS if self["BURST_DURATION"] is None else self["BURST_DURATION"], 1000)
        tokens = f"(rate) * {int(share)}ull / 1000000"
        return f"({tokens} ? {tokens} : 1)"


class RatedUnqueue(_Unqueue):
    """Pulls RATE packets a second and pushes them.

    The bucket holds BURST_SIZE packets, or BURST_DURATION (20 ms) of the rate.
    """

    ports = "1/1"
    parameters = (
        required("RATE", RATE),
        keyword("BURST_DURATION", Seconds(max=60 * SECOND_NS)),
        keyword("BURST_SIZE", TOKENS),
        keyword("ACTIVE", Boolean(), True),
    )

    def burst(self) -> int | None:
        size: int | None = self["BURST_SIZE"]
        return size


class BandwidthRatedUnqueue(_Unqueue):
    """Pulls at RATE bytes a second and pushes.

    The bucket holds BURST_BYTES, or BURST_DURATION (20 ms) of the rate; a packet may take more than is left, which is
    paid back before the next.
    """

    ports = "1/1"
    parameters = (
        required("RATE", BANDWIDTH),
        keyword("BURST_DURATION", Seconds(max=60 * SECOND_NS)),
        keyword("BURST_BYTES", TOKENS),
        keyword("ACTIVE", Boolean(), True),
    )
    bytes_count = True

    def burst(self) -> int | None:
        size: int | None = self["BURST_BYTES"]
        return size


class Shaper(_Bucket):
    """Lets RATE packets a second be pulled; output 1, where there is one, gets those in between."""

    ports = "1/1-2"
    processing = "l/l"
    parameters = (required("RATE", RATE),)


class BandwidthShaper(_Bucket):
    """Lets RATE bytes a second be pulled."""

    ports = "1/1"
    processing = "l/l"
    parameters = (required("RATE", BANDWIDTH),)
    bytes_count = True
    template = "shaper.h"


class _Meter(Element):
    """Sends all packets out of the output that their rate has reached."""

    ports = ""
    processing = "h/h"
    headers = ("rate.h",)
    handlers = (Read("rate"),)
    template = "meter.h"
    cost = "1"

    def check(self) -> None:
        rates = self["RATE"]
        if not rates:
            raise self.error("found no rate; allowed: one or more")
        for index in range(1, len(rates)):
            if rates[index] <= rates[index - 1]:
                raise self.error(f"found {rates[index]} behind {rates[index - 1]}; rates must grow", ("RATE", index))
        if self.n_outputs != len(rates) + 1:
            raise self.error(f"found {len(rates)} rates for {self.n_outputs} outputs; there must be one output more")

    def defines(self) -> dict[str, str | int]:
        return {"COST(p)": self.cost}

    def code(self) -> str:
        tests = [f"    if (rate < {value}ull * 1024) return {index};" for index, value in enumerate(self["RATE"])]
        return "\n".join(
            ["static uint32_t ME(level)(uint64_t rate) {", *tests, f"    return {len(tests)};", "}"],
        )


class Meter(_Meter):
    """Sends packets out of output n while n of the RATEs, packets a second, are reached by their average."""

    ports = "1/2-"
    parameters = (rest("RATE", RATE),)


class BandwidthMeter(_Meter):
    """Sends packets out of output n while n of the RATEs, bytes a second, are reached by their average."""

    ports = "1/2-"
    parameters = (rest("RATE", BANDWIDTH),)
    cost = "(p)->len"


class AverageCounter(Element):
    """Counts packets and bytes, and their rate from first to last packet, without the first IGNORE (0) seconds."""

    ports = "1/1"
    parameters = (optional("IGNORE", Unsigned(86400), 0),)
    action = True
    handlers = (Read("count"), Read("byte_count"), Read("rate"), Read("byte_rate"), Write("reset"))


class IPRateMonitor(Element):
    """Measures the rates of packets or bytes by address, of sources at input 0 and destinations at input 1.

    TYPE is PACKETS or BYTES. A prefix whose rate is above THRESH is looked at more closely, by one more byte of the
    address. RATIO (up to 1): the share of packets that are looked at. MEMORY: KiB for the table, at least 100 (0: 400).
    ANNO is taken, and changes nothing.
    """

    ports = "1-2/="
    flow = "#/#"
    parameters = (
        required("TYPE", Choice("PACKETS", "BYTES")),
        required("RATIO", Real(0.0001, 1)),
        required("THRESH", Unsigned(2**31)),
        optional("MEMORY", Unsigned(1024), 0),
        optional("ANNO", Boolean(), True),
    )
    headers = ("rate.h",)
    handlers = (Read("look"), Read("thresh"), Write("reset"))

    def defines(self) -> dict[str, str | int]:
        memory = max(100, self["MEMORY"] or 400)
        return {
            "COST(p)": "1" if self["TYPE"] == "PACKETS" else "(p)->len",
            "SHARE": f"{max(1, round(self['RATIO'] * 2**32)) - 1}u",
            "WEIGHT": f"{round(1024 / self['RATIO'])}ull",
            "THRESH": f"{self['THRESH']}ull",
            "NODES": memory * 1024 // (256 * 32),
            "PUSHES": int(self.pushes_in[0]),
        }
