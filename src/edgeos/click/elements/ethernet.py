"""Ethernet headers, VLAN tags and ARP."""

from __future__ import annotations

from typing import Any

from edgeos.click.arguments import keyword, optional, required, rest
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import (
    ArgumentError,
    Boolean,
    EtherAddress,
    IPAddress,
    IPPrefix,
    Kind,
    Prefix,
    Seconds,
    Special,
    Unsigned,
    bad,
    literal,
    raw32,
)

ETHER_TYPE = Unsigned(0xFFFF)
SECOND_NS = 1_000_000_000


class EtherEncap(Element):
    """Puts an Ethernet header in front: type ETHERTYPE, from SRC to DST."""

    ports = "1/1"
    parameters = (required("ETHERTYPE", ETHER_TYPE), required("SRC", EtherAddress()), required("DST", EtherAddress()))
    action = True
    handlers = (Read("src"), Read("dst"), Read("ethertype"))


class EtherMirror(Element):
    """Swaps source and destination of the Ethernet header."""

    ports = "1/1"
    action = True


class EtherVLANEncap(Element):
    """Puts an Ethernet header with a VLAN tag in front.

    The tag is VLAN_TCI (ANNO: the packet's annotation), or VLAN_ID and VLAN_PCP. Packets of NATIVE_VLAN (0; -1 for
    none) get a header without a tag.
    """

    ports = "1/1"
    parameters = (
        required("ETHERTYPE", ETHER_TYPE),
        required("SRC", EtherAddress()),
        required("DST", EtherAddress()),
        optional("VLAN_TCI", Special("ANNO", Unsigned(0xFFFF))),
        optional("VLAN_PCP", Unsigned(7)),
        keyword("VLAN_ID", Unsigned(0xFFF)),
        keyword("NATIVE_VLAN", Special("-1", Unsigned(0xFFF)), 0),
    )
    action = True
    handlers = (Read("src"), Read("dst"), Read("ethertype"))

    def check(self) -> None:
        if self.given("VLAN_TCI") == self.given("VLAN_ID"):
            raise self.error("found both or none of VLAN_TCI and VLAN_ID; allowed: one of them")

    def defines(self) -> dict[str, str | int]:
        constants = super().defines()
        tci = self["VLAN_TCI"] or 0
        if self.given("VLAN_ID"):
            tci = self["VLAN_ID"]
        pcp = tci >> 13 if self["VLAN_PCP"] is None else self["VLAN_PCP"]
        constants["TCI"] = "p->vlan_tci" if self.given("VLAN_TCI") and self["VLAN_TCI"] is None else f"{tci & 0xFFF}u"
        constants["PCP"] = "0u" if self["VLAN_PCP"] is None and constants["TCI"] == "p->vlan_tci" else f"{pcp << 13}u"
        constants["NATIVE"] = "0xffffu" if self["NATIVE_VLAN"] is None else f"{self['NATIVE_VLAN']}u"
        return constants


class VLANDecap(Element):
    """Takes the VLAN tag out of Ethernet packets that have one of type ETHERTYPE (0x8100).

    The tag becomes the packet's VLAN annotation unless ANNO is false.
    """

    ports = "1/1"
    parameters = (keyword("ANNO", Boolean(), True), keyword("ETHERTYPE", ETHER_TYPE, 0x8100))
    action = True


class HostEtherFilter(Element):
    """Passes what a device of address ETHER would take; other packets leave by output 1, or are dropped.

    Those are packets to another host unless DROP_OTHER is false, and packets from ETHER itself if DROP_OWN is true. The
    Ethernet header starts at OFFSET (0).
    """

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (
        required("ETHER", EtherAddress()),
        optional("DROP_OWN", Boolean(), False),
        optional("DROP_OTHER", Boolean(), True),
        keyword("OFFSET", Unsigned(1024), 0),
    )
    action = True


class DropBroadcasts(Element):
    """Drops packets that were sent to all or many at link level."""

    ports = "1/1"
    action = True
    handlers = (Read("drops"), Write("reset_counts"))


class StripToNetworkHeader(Element):
    """Makes the packet begin at its network header."""

    ports = "1/1"
    action = True


class ArpEntry(Kind):
    """Prefixes or addresses, and the Ethernet address that answers for them."""

    @property
    def allowed(self) -> str:
        return "one or more addresses or prefixes, then an Ethernet address"

    @property
    def usage(self) -> str:
        return "prefix … Ethernet address"

    def parse(self, text: str) -> tuple[tuple[Prefix, ...], bytes]:
        words = text.split()
        if len(words) < 2:
            raise bad(text, self.allowed)
        try:
            return tuple(IPPrefix(host=True).parse(word) for word in words[:-1]), EtherAddress().parse(words[-1])
        except ArgumentError as error:
            raise ArgumentError(f"{error} (an entry is {self.allowed})") from None


class ARPResponder(Element):
    """Answers ARP requests for the addresses that it knows; others leave by output 1, or are dropped."""

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (rest("ENTRY", ArpEntry()),)
    action = True
    handlers = (Read("table"), Read("count"))

    def check(self) -> None:
        if not self["ENTRY"]:
            raise self.error("found no entry; allowed: one or more, such as 10.0.0.1 00:11:22:33:44:55")

    def entries(self) -> list[tuple[Prefix, bytes]]:
        """Longest prefixes first."""
        flat = [(prefix, ether) for prefixes, ether in self["ENTRY"] for prefix in prefixes]
        return sorted(flat, key=lambda entry: -entry[0].length)

    def code(self) -> str:
        lines = ["static const uint8_t *ME(find)(uint32_t address) {", "    (void)address;"]
        for prefix, ether in self.entries():
            address = raw32(prefix.address & prefix.mask)
            lines.append(
                f"    if ((address & 0x{raw32(prefix.mask):08x}u) == 0x{address:08x}u)"
                f" return (const uint8_t *){literal(ether)};"
            )
        lines += ["    return NULL;", "}", "static void ME(read_table)(click_text *out) {"]
        for prefix, ether in self.entries():
            row = f"{IPAddress.text(prefix.address & prefix.mask)}/{prefix.length} {ether.hex(':')}\n"
            lines.append(f"    click_text_string(out, {literal(row.encode())});")
        return "\n".join([*lines, "}"])


class ARPQuerier(Element):
    """Puts an Ethernet header in front of IP packets, found by ARP; the packets wait meanwhile.

    Input 0 takes IP packets with their destination annotation, input 1 ARP replies with their Ethernet header. Queries
    leave by output 1 where there is one. IP and ETH are this host's addresses. CAPACITY (64, at most 256): packets that
    may wait; ENTRY_PACKET_CAPACITY (0: no limit but that): those that wait for one address; ENTRY_CAPACITY (256, at
    most 4096): addresses that are remembered, of which old ones give way. TIMEOUT (5 min): how long an answer is good;
    POLL_TIMEOUT (1 min; 0: never): the age from which it is asked for again, of the owner or, with BROADCAST_POLL, of
    all. Packets to BROADCAST, 255.255.255.255 and groups go to the Ethernet address that stands for them.
    """

    ports = "2/1-2"
    processing = "h/h"
    flow = "xy/x"
    parameters = (
        required("IP", IPPrefix(host=True)),
        required("ETH", EtherAddress()),
        keyword("CAPACITY", Unsigned(256, 1), 64),
        keyword("ENTRY_CAPACITY", Unsigned(4096), 0),
        keyword("ENTRY_PACKET_CAPACITY", Unsigned(256), 0),
        keyword("TIMEOUT", Seconds(), 300 * SECOND_NS),
        keyword("POLL_TIMEOUT", Seconds(), 60 * SECOND_NS),
        keyword("BROADCAST", IPAddress()),
        keyword("BROADCAST_POLL", Boolean(), False),
    )
    handlers = (
        Read("ipaddr"),
        Read("broadcast"),
        Read("table"),
        Read("stats"),
        Read("queries"),
        Read("responses"),
        Read("drops"),
        Read("count"),
        Read("length"),
        Write("insert"),
        Write("delete"),
        Write("clear"),
    )

    @property
    def holds(self) -> bool:
        return True

    @property
    def packets(self) -> int:
        return int(self["CAPACITY"]) + 1

    def defines(self) -> dict[str, str | int]:
        prefix: Prefix = self["IP"]
        broadcast: Any = self["BROADCAST"]
        if broadcast is not None:
            last = int(broadcast)
        else:
            last = prefix.address | ~prefix.mask & 0xFFFFFFFF if prefix.length < 31 else 0xFFFFFFFF
        ways = -(-(self["ENTRY_CAPACITY"] or 256) // 4)
        return super().defines() | {
            "BROADCAST": f"0x{raw32(last):08x}u",
            "SETS": f"{1 << (ways - 1).bit_length()}u",
            "WAITING_MAX": f"{self['ENTRY_PACKET_CAPACITY'] or self['CAPACITY']}u",
        }
