"""ICMP: errors, answers to echoes, checks."""

from __future__ import annotations

from collections.abc import Mapping

from edgeos.click.arguments import keyword, optional, required
from edgeos.click.element import Element, Read, Write
from edgeos.click.elements.transport import Check
from edgeos.click.kinds import Boolean, IPAddress, Kind, Unsigned, Words, bad, raw32

TYPES = {"unreachable": 3, "sourcequench": 4, "redirect": 5, "timeexceeded": 11, "parameterproblem": 12}
CODES = {
    3: {"net": 0, "host": 1, "protocol": 2, "port": 3, "needfrag": 4},
    5: {"net": 0, "host": 1},
    11: {"transit": 0, "reassembly": 1},
    12: {"erroratptr": 0, "missingopt": 1, "length": 2},
}
ERRORS = (3, 4, 5, 11, 12)


class IcmpType(Kind):
    """The type of an ICMP error, by its number or name."""

    @property
    def allowed(self) -> str:
        return ", ".join(f"{name} ({number})" for name, number in TYPES.items())

    @property
    def usage(self) -> str:
        return "type"

    def parse(self, text: str) -> int:
        if text in TYPES:
            return TYPES[text]
        if text.isascii() and text.isdigit() and int(text[:4]) in ERRORS:
            return int(text)
        raise bad(text, self.allowed)

    def constants(self, name: str, value: int) -> Mapping[str, str]:
        return {name: f"{value}u"}


class IcmpCode(Kind):
    """A code of some type, by its number or name; the value is the text."""

    @property
    def allowed(self) -> str:
        return "a number from 0 to 255, or a name that the type has"

    @property
    def usage(self) -> str:
        return "code"

    def parse(self, text: str) -> str:
        if not any(text in codes for codes in CODES.values()):
            Unsigned(255).parse(text)
        return text


class ICMPError(Element):
    """Turns an IP packet into the ICMP error about it, of TYPE and CODE (0), from SRC to the packet's source.

    Nothing comes of packets that errors must not be about: ICMP errors, fragments but the first, packets to or from
    broadcast addresses, groups and those in BADADDRS. The error is at most MTU (576) bytes long; PMTU is the MTU that
    needfrag reports; a redirect names the packet's destination annotation. FixIPSrc may set the source later, unless
    USE_FIX_ANNO is false.
    """

    ports = "1/1"
    parameters = (
        required("SRC", IPAddress()),
        required("TYPE", IcmpType()),
        optional("CODE", IcmpCode(), "0"),
        optional("BADADDRS", Words(IPAddress()), ()),
        keyword("MTU", Unsigned(65535, 68), 576),
        keyword("PMTU", Unsigned(65535), 576),
        keyword("USE_FIX_ANNO", Boolean(), True),
    )
    action = True
    handlers = (Read("src"), Read("mtu"), Read("pmtu"), Read("count"))

    def check(self) -> None:
        if not self["CODE"].isdigit() and self["CODE"] not in CODES.get(self["TYPE"], {}):
            known = ", ".join(CODES.get(self["TYPE"], {})) or "none"
            raise self.error(f"found {self['CODE']}; codes that this type has: {known}", "CODE")

    def defines(self) -> dict[str, str | int]:
        code = self["CODE"]
        value = int(code) if code.isdigit() else CODES[self["TYPE"]][code]
        return super().defines() | {"ARG_CODE": f"{value}u"}

    def code(self) -> str:
        tests = " || ".join(f"address == 0x{raw32(int(address)):08x}u" for address in self["BADADDRS"]) or "false"
        return f"static inline bool ME(is_bad)(uint32_t address) {{\n    (void)address;\n    return {tests};\n}}"


class ICMPPingResponder(Element):
    """Answers echo requests; other packets leave by output 1, or are dropped."""

    ports = "1/1-2"
    processing = "a/ah"
    action = True
    handlers = (Read("count"), Write("reset_counts"))


class CheckICMPHeader(Check):
    """Passes ICMP packets with a good header and checksum; others leave by output 1, or are dropped."""

    ports = "1/1-2"
    function = "click_check_icmp"
