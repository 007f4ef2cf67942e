"""Sources and sinks, queues, counters, and what passes packets on unchanged."""

from __future__ import annotations

from edgeos.click.arguments import keyword, optional, required
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import Boolean, DeviceName, Integer, Text, Unsigned

PAINT = Unsigned(255)
PORTS_MAX = 16


class FromDevice(Element):
    """Packets that came in from DEVNAME: the name of a device, or its number."""

    ports = "0/1"
    processing = "/h"
    parameters = (required("DEVNAME", DeviceName()),)

    @property
    def in_port(self) -> int:
        return self.device(self["DEVNAME"])


class ToDevice(Element):
    """Sends packets out to DEVNAME. Pulls them at the end of each burst when it stands behind a queue."""

    ports = "1/0"
    processing = "a/"
    parameters = (required("DEVNAME", DeviceName()),)
    handlers = (Read("count"), Read("refused"), Write("reset"))
    template = "to_port.h"

    @property
    def task(self) -> bool:
        return not self.pushes_in[0]

    def defines(self) -> dict[str, str | int]:
        return {"SEND(p)": f"click_to_device(p, {self.device(self['DEVNAME'])})"}


class FromRing(Element):
    """Packets that came in at in port N (0), whatever device stands before it."""

    ports = "0/1"
    processing = "/h"
    parameters = (optional("N", Unsigned(PORTS_MAX - 1), 0),)
    template = "from_device.h"

    @property
    def in_port(self) -> int:
        return int(self["N"])


class ToRing(Element):
    """Sends packets out of out port N (0) in the direction that they travel."""

    ports = "1/0"
    processing = "a/"
    parameters = (optional("N", Unsigned(PORTS_MAX - 1), 0),)
    handlers = (Read("count"), Read("refused"), Write("reset"))
    template = "to_port.h"

    @property
    def task(self) -> bool:
        return not self.pushes_in[0]

    def defines(self) -> dict[str, str | int]:
        return {"SEND(p)": f"click_to_ring(p, {self['N']})"}


class Discard(Element):
    """Ends packets: they count as drops by verdict. Pulls them when it stands behind a queue."""

    ports = "1/0"
    processing = "a/"
    handlers = (Read("count"), Write("reset_counts"))

    @property
    def task(self) -> bool:
        return not self.pushes_in[0]


class Idle(Element):
    """Has as many ports as are connected, gives no packets and drops those that it gets."""

    ports = "-/-"
    processing = "a/a"
    flow = "x/y"


class Null(Element):
    """Passes packets on unchanged."""

    ports = "1/1"
    action = True


class Tee(Element):
    """Sends each packet out of all its outputs; copies come from the pool."""

    ports = "1/1-"
    processing = "h/h"
    parameters = (optional("N", Unsigned(255, 1)),)

    def check(self) -> None:
        if self["N"] is not None and self["N"] != self.n_outputs:
            raise self.error(f"found {self['N']} for {self.n_outputs} connected outputs", "N")

    @property
    def packets(self) -> int:
        return self.n_outputs - 1


class Counter(Element):
    """Counts packets and bytes that pass."""

    ports = "1/1"
    action = True
    headers = ("rate.h",)
    handlers = (
        Read("count"),
        Read("byte_count"),
        Read("rate"),
        Read("byte_rate"),
        Read("bit_rate"),
        Write("reset"),
    )


class SimpleQueue(Element):
    """Keeps up to CAPACITY packets (1000) and drops those that come when it is full."""

    ports = "1/1"
    processing = "h/l"
    parameters = (optional("CAPACITY", Unsigned(65536, 1), 1000),)
    handlers = (
        Read("length"),
        Read("highwater_length"),
        Read("capacity"),
        Read("drops"),
        Write("reset_counts"),
        Write("reset"),
    )
    template = "queue.h"
    front = False

    @property
    def holds(self) -> bool:
        return True

    @property
    def packets(self) -> int:
        return int(self["CAPACITY"])

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"FRONT_DROP": int(self.front)}


class Queue(SimpleQueue):
    """Keeps up to CAPACITY packets (1000) and drops those that come when it is full."""

    ports = "1/1"


class FrontDropQueue(SimpleQueue):
    """Keeps up to CAPACITY packets (1000) and drops its oldest when one more comes."""

    ports = "1/1"
    front = True


class Unqueue(Element):
    """Pulls up to BURST packets (1, as Click does; a burst's end asks again until there are none) and pushes them."""

    ports = "1/1"
    processing = "l/h"
    parameters = (
        optional("BURST", Integer(-1), 1),
        keyword("ACTIVE", Boolean(), True),
        keyword("LIMIT", Integer(-1), -1),
    )
    handlers = (Read("count"), Read("active"), Write("active"), Write("reset"))

    @property
    def task(self) -> bool:
        return True


class Paint(Element):
    """Sets the paint annotation to COLOR."""

    ports = "1/1"
    parameters = (required("COLOR", PAINT),)
    action = True


class CheckPaint(Element):
    """Passes packets of paint COLOR; others leave by output 1 where there is one, and are dropped else."""

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (required("COLOR", PAINT),)
    action = True


class PaintSwitch(Element):
    """Sends each packet out of the output that its paint annotation numbers, or drops it where there is none."""

    ports = "1/-"
    processing = "h/h"


class Switch(Element):
    """Sends packets out of output OUTPUT (0), or drops them when it is -1; the handler `switch` changes it."""

    ports = "1/-"
    processing = "h/h"
    parameters = (optional("OUTPUT", Integer(-1, 65535), 0),)
    handlers = (Read("switch"), Write("switch"))

    def check(self) -> None:
        if self["OUTPUT"] >= self.n_outputs:
            raise self.error(f"found {self['OUTPUT']}; connected outputs: 0 to {self.n_outputs - 1}", "OUTPUT")


class Strip(Element):
    """Removes the first LENGTH bytes; of a shorter packet nothing is left."""

    ports = "1/1"
    parameters = (required("LENGTH", Unsigned(65535)),)
    action = True


class Unstrip(Element):
    """Puts LENGTH bytes in front, those that lay there; drops packets that would become too long."""

    ports = "1/1"
    parameters = (required("LENGTH", Unsigned(65535)),)
    action = True


class Print(Element):
    """Keeps the first MAXLENGTH bytes (24) of the last packet, under LABEL, for the handler `last`."""

    ports = "1/1"
    parameters = (
        optional("LABEL", Text(64), b""),
        optional("MAXLENGTH", Integer(-1, 1500), 24),
        keyword("TIMESTAMP", Boolean(), False),
        keyword("ACTIVE", Boolean(), True),
    )
    action = True
    handlers = (Read("last"), Read("count"), Read("active"), Write("active"))


class PaintTee(Element):
    """Sends packets of paint COLOR out of output 1 as well, as copies."""

    ports = "1/2"
    processing = "a/ah"
    parameters = (required("COLOR", PAINT),)
    action = True

    @property
    def packets(self) -> int:
        return 1
