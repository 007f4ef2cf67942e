"""IPv4 headers: checked, read, changed, put in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from edgeos.click.arguments import Parameter, keyword, optional, required
from edgeos.click.element import Element, Read, Write
from edgeos.click.ip_names import PROTOCOLS
from edgeos.click.kinds import (
    ArgumentError,
    Boolean,
    Choice,
    IPAddress,
    IPPrefix,
    Kind,
    Port,
    Special,
    Unsigned,
    Words,
    bad,
    literal,
    raw32,
)

ADDRESSES = Words(IPAddress())
EVERYONE = 0xFFFFFFFF
PAINT = Unsigned(255)
MTU = Unsigned(65535, 68)
OFFSET = Unsigned(4096)


class Protocol(Kind):
    """A protocol of IP, by its number or name."""

    @property
    def allowed(self) -> str:
        return "a protocol: 0 to 255, or a name such as ipip"

    @property
    def usage(self) -> str:
        return "protocol"

    def parse(self, text: str) -> int:
        return PROTOCOLS[text] if text in PROTOCOLS else int(Unsigned(255).parse(text))

    def constants(self, name: str, value: int) -> dict[str, str]:
        return {name: f"{value}u"}


class OffsetOrAddresses(Kind):
    """Where the IP header starts; or, as configurations of old have it, addresses that are bad sources."""

    @property
    def allowed(self) -> str:
        return OFFSET.allowed + ", or IPv4 addresses with spaces between them"

    @property
    def usage(self) -> str:
        return "offset"

    def parse(self, text: str) -> Any:
        if "." not in text:
            return OFFSET.parse(text)
        try:
            return ADDRESSES.parse(text)
        except ArgumentError:
            raise bad(text, self.allowed) from None


class _Checked(Element):
    """Checks IP headers; `bad_sources` and `good_destinations` are addresses as numbers."""

    ports = ""
    processing = "a/ah"
    action = True
    offset = 0

    def addresses(self) -> tuple[set[int], set[int]]:
        """Sources that are refused, and destinations for which they are not."""
        bad_sources = {int(address) for address in self["BADSRC"] or ()}
        good = {int(address) for address in self["GOODDST"] or ()}
        for prefix in self["INTERFACES"] or ():
            bad_sources |= {0, EVERYONE}
            if prefix.length < 31:
                bad_sources.add(prefix.address | ~prefix.mask & EVERYONE)
            good.add(prefix.address)
        return bad_sources, good

    def code(self) -> str:
        bad_sources, good = self.addresses()
        refused = " || ".join(f"source == 0x{raw32(address):08x}u" for address in sorted(bad_sources)) or "false"
        excused = "".join(f" && destination != 0x{raw32(address):08x}u" for address in sorted(good))
        return (
            "static inline bool ME(bad_source)(uint32_t source, uint32_t destination) {\n"
            "    (void)source, (void)destination;\n"
            f"    return ({refused}){excused};\n}}"
        )


class CheckIPHeader(_Checked):
    """Passes packets with a good IP header, sets annotations by it and cuts what lies behind the datagram.

    Others leave by output 1, or are dropped. The header starts at OFFSET (0). Its checksum counts unless CHECKSUM is
    false. A source address is bad when it is in BADSRC, or when INTERFACES are given and it is the broadcast address of
    one of these prefixes, 0.0.0.0 or 255.255.255.255; but not for a destination in GOODDST or an address of INTERFACES.
    DETAILS counts by reason.
    """

    ports = "1/1-2"
    parameters: ClassVar[Sequence[Parameter]] = (
        optional("OFFSET", OffsetOrAddresses(), 0),
        keyword("INTERFACES", Words(IPPrefix(host=True))),
        keyword("BADSRC", ADDRESSES),
        keyword("GOODDST", ADDRESSES),
        keyword("CHECKSUM", Boolean(), True),
        keyword("VERBOSE", Boolean(), False),
        keyword("DETAILS", Boolean(), False),
    )
    handlers = (Read("drops"), Read("drop_details"), Write("reset_counts"))

    def addresses(self) -> tuple[set[int], set[int]]:
        bad_sources, good = super().addresses()
        if isinstance(self["OFFSET"], tuple):
            bad_sources |= {0, EVERYONE, *(int(address) for address in self["OFFSET"])}
        return bad_sources, good

    def defines(self) -> dict[str, str | int]:
        offset = 0 if isinstance(self["OFFSET"], tuple) else self["OFFSET"]
        return super().defines() | {"ARG_OFFSET": f"{offset}u"}


class CheckIPHeader2(CheckIPHeader):
    """CheckIPHeader that does not look at the checksum, unless CHECKSUM is true."""

    ports = "1/1-2"
    parameters = tuple(
        keyword("CHECKSUM", Boolean(), False) if p.name == "CHECKSUM" else p for p in CheckIPHeader.parameters
    )
    template = "check_ip_header.h"


class MarkIPHeader(Element):
    """Says that the IP header starts at OFFSET (0), and checks nothing."""

    ports = "1/1"
    parameters = (optional("OFFSET", OFFSET, 0),)
    action = True


class DecIPTTL(Element):
    """Takes one from the time to live; packets whose time is up leave by output 1, or are dropped.

    MULTICAST false leaves packets to groups alone, ACTIVE false all.
    """

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (keyword("ACTIVE", Boolean(), True), keyword("MULTICAST", Boolean(), True))
    action = True
    handlers = (Read("drops"),)


class GetIPAddress(Element):
    """Copies an address from the packet to its destination annotation: from OFFSET, or IP, src or dst."""

    ports = "1/1"
    parameters = (optional("OFFSET", OFFSET), keyword("IP", Choice("src", "dst")))
    action = True

    def check(self) -> None:
        if self.given("OFFSET") == self.given("IP"):
            raise self.error("found both or none of OFFSET and IP; allowed: one of them")

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"FIELD": {None: 0, "src": 12, "dst": 16}[self["IP"]]}


class SetIPAddress(Element):
    """Sets the destination annotation to ADDR."""

    ports = "1/1"
    parameters = (required("ADDR", IPAddress()),)
    action = True
    handlers = (Read("addr"),)


class SetIPDSCP(Element):
    """Sets the DSCP of IP packets."""

    ports = "1/1"
    parameters = (required("DSCP", Unsigned(63)),)
    action = True


class SetIPChecksum(Element):
    """Sets the checksum of the IP header."""

    ports = "1/1"
    action = True


class IPMirror(Element):
    """Swaps source and destination, ports too, and TCP's sequence numbers.

    The destination annotation follows unless DST_ANNO is false.
    """

    ports = "1/1"
    parameters = (optional("DST_ANNO", Boolean(), True),)
    action = True


class FixIPSrc(Element):
    """Sets the source address to IPADDR where an element such as ICMPError has asked for it."""

    ports = "1/1"
    parameters = (required("IPADDR", IPAddress()),)
    action = True


class CheckLength(Element):
    """Passes packets of at most LENGTH bytes; others leave by output 1, or are dropped."""

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (required("LENGTH", Unsigned(65535)),)
    action = True


class IPInputCombo(_Checked):
    """Paint, Strip(14), CheckIPHeader and GetIPAddress(16) in one."""

    ports = "1/1"
    parameters = (
        required("COLOR", PAINT),
        optional("BADSRC", ADDRESSES),
        keyword("INTERFACES", Words(IPPrefix(host=True))),
        keyword("GOODDST", ADDRESSES),
        keyword("CHECKSUM", Boolean(), True),
        keyword("DETAILS", Boolean(), False),
    )
    handlers = (Read("drops"), Read("drop_details"), Write("reset_counts"))

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"ARG_OFFSET": "0u"}


class IPOutputCombo(Element):
    """DropBroadcasts, PaintTee, IPGWOptions, FixIPSrc, DecIPTTL and CheckLength(MTU) in one.

    Output 1 gets copies of packets of paint COLOR, 2 those with bad options, 3 those whose time is up, 4 those longer
    than MTU.
    """

    ports = "1/5"
    processing = "h/h"
    parameters = (required("COLOR", PAINT), required("IPADDR", IPAddress()), required("MTU", MTU))

    @property
    def packets(self) -> int:
        return 1

    def code(self) -> str:
        return own_addresses([int(self["IPADDR"])])


def own_addresses(addresses: list[int]) -> str:
    """C that knows this router's addresses."""
    tests = " || ".join(f"address == 0x{raw32(address):08x}u" for address in addresses)
    return f"static inline bool ME(is_mine)(uint32_t address) {{\n    return {tests};\n}}"


class IPGWOptions(Element):
    """Does what routers do for the IP options record route and timestamp, of which MYADDR is this router's address.

    OTHERADDRS are its other addresses. Packets with bad options leave by output 1, or are dropped; their annotation
    says where ICMPError is to point.
    """

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (required("MYADDR", IPAddress()), optional("OTHERADDRS", ADDRESSES, ()))
    action = True
    handlers = (Read("drops"),)

    def code(self) -> str:
        return own_addresses([int(self["MYADDR"]), *map(int, self["OTHERADDRS"])])


class IPFragmenter(Element):
    """Cuts IP packets longer than MTU in fragments; those that must not be leave by output 1, or are dropped.

    HONOR_DF false cuts them all the same. VERBOSE and HEADROOM are taken, and change nothing.
    """

    ports = "1/1-2"
    processing = "h/h"
    parameters = (
        required("MTU", MTU),
        optional("HONOR_DF", Boolean(), True),
        keyword("VERBOSE", Boolean(), False),
        keyword("HEADROOM", Unsigned(1024)),
    )
    handlers = (Read("drops"), Read("fragments"))

    @property
    def packets(self) -> int:
        smallest: int = (self["MTU"] - 60) & ~7
        return 2048 // smallest + 2


def header_bytes(protocol: int, source: int, target: int, tos: int, ttl: int, fragment: int) -> bytes:
    """An IP header without options, identification, length and checksum."""
    return (
        bytes([0x45, tos, 0, 0, 0, 0])
        + fragment.to_bytes(2, "big")
        + bytes([ttl, protocol, 0, 0])
        + source.to_bytes(4, "big")
        + target.to_bytes(4, "big")
    )


class IPEncap(Element):
    """Puts an IP header in front: PROTO, from SRC to DST (DST_ANNO: the packet's destination annotation).

    TTL is 250, TOS 0; DSCP, ECT (true or 1, 2), CE and DF set parts of it.
    """

    ports = "1/1"
    parameters = (
        required("PROTO", Protocol()),
        required("SRC", IPAddress()),
        required("DST", Special("DST_ANNO", IPAddress())),
        keyword("TTL", Unsigned(255), 250),
        keyword("DSCP", Unsigned(63), 0),
        keyword("ECT", Special("2", Boolean()), False),
        keyword("CE", Boolean(), False),
        keyword("TOS", Unsigned(255)),
        keyword("DF", Boolean(), False),
    )
    action = True
    handlers = (Read("src"), Read("dst"))

    def check(self) -> None:
        if self.given("TOS") and (self.given("DSCP") or self.given("ECT") or self.given("CE")):
            raise self.error("found TOS beside DSCP, ECT or CE, which are parts of it; allowed: one way", "TOS")

    def defines(self) -> dict[str, str | int]:
        tos = self["TOS"]
        if tos is None:
            ecn = 3 if self["CE"] else 2 if self["ECT"] is None else int(self["ECT"])
            tos = self["DSCP"] << 2 | ecn
        header = header_bytes(
            self["PROTO"], int(self["SRC"]), int(self["DST"] or 0), tos, self["TTL"], 0x4000 if self["DF"] else 0
        )
        return super().defines() | {"HEADER": literal(header), "TO_ANNOTATION": int(self["DST"] is None)}


class UDPIPEncap(Element):
    """Puts UDP and IP headers in front, from SRC and SPORT to DST (DST_ANNO: the annotation) and DPORT.

    The UDP checksum is zero when CHECKSUM is false.
    """

    ports = "1/1"
    parameters = (
        required("SRC", IPAddress()),
        required("SPORT", Port()),
        required("DST", Special("DST_ANNO", IPAddress())),
        required("DPORT", Port()),
        optional("CHECKSUM", Boolean(), True),
    )
    action = True
    handlers = (Read("src"), Read("sport"), Read("dst"), Read("dport"))

    def defines(self) -> dict[str, str | int]:
        header = header_bytes(17, int(self["SRC"]), int(self["DST"] or 0), 0, 250, 0)
        return super().defines() | {"HEADER": literal(header), "TO_ANNOTATION": int(self["DST"] is None)}
