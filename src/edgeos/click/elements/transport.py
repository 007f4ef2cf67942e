"""TCP and UDP headers: checked, and their checksums set."""

from __future__ import annotations

from edgeos.click.arguments import keyword, optional
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import Boolean


class Check(Element):
    """Passes good packets; others leave by output 1, or are dropped."""

    ports = ""
    processing = "a/ah"
    parameters = (keyword("VERBOSE", Boolean(), False), keyword("DETAILS", Boolean(), False))
    action = True
    handlers = (Read("drops"), Read("drop_details"), Write("reset_counts"))
    template = "check_transport.h"
    function = ""

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"CHECK(p)": f"{self.function}(p)"}


class CheckUDPHeader(Check):
    """Passes UDP packets with a good length and checksum; others leave by output 1, or are dropped."""

    ports = "1/1-2"
    function = "click_check_udp"


class CheckTCPHeader(Check):
    """Passes TCP packets with a good header and checksum; others leave by output 1, or are dropped."""

    ports = "1/1-2"
    function = "click_check_tcp"


class SetUDPChecksum(Element):
    """Sets the UDP checksum; fragments and packets that are too short leave by output 1, or are dropped."""

    ports = "1/1-2"
    processing = "a/ah"
    action = True


class SetTCPChecksum(Element):
    """Sets the TCP checksum; FIXOFF also corrects a data offset that is too large or too small."""

    ports = "1/1"
    parameters = (optional("FIXOFF", Boolean(), False),)
    action = True
