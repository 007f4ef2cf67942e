"""Which flows a rule speaks of: from text such as `udp dst 192.168.1.0/24 port 53` to plain fields for the kernel.

A match is a row of terms that must all hold, with an optional `and` between them:

    any                          everything
    ip, ip4, ip6, non-ip         by kind of network layer (also ipv4, ipv6, not ip)
    arp, ethertype 0x88cc        by Ethernet type
    tcp, udp, sctp, icmp, icmp6, proto 47
    src PREFIX, dst PREFIX       addresses: 10.0.0.0/8, 10.0.0.1, 2001:db8::/32
    src port N, dst port N-M     ports of TCP, UDP or SCTP
    src PREFIX port N            the same as src PREFIX and src port N
    port N                       either side's port
    vlan N                       802.1Q VLAN
    from PORT                    the port of the node where the flow's first message came in
    sni NAME                     the server's name in the first bytes of a TLS connection: host.example, *.example

Rules see a flow from the client's side: src is the address and port of the client.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgeos.findings import BadValueError, nearest, shown

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PortRange = tuple[int, int]

TEXT_CHARACTERS_MAX = 1024
SERVER_NAME_MAX = 255
SERVER_NAME = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")

ETHERTYPE_IP4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IP6 = 0x86DD
ETHERTYPES_VLAN = (0x8100, 0x88A8)
PROTOCOL_ICMP = 1
PROTOCOL_ICMP6 = 58
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, kw_only=True)
class Match:
    """A condition on a flow; a field that is None (ip_version: 0) asks for nothing.

    `ip` is True for IP only, False for all else. Port ranges hold both ends; `any_port` is met by either side's port.
    `port` is the node's port of entry, `server_name` that of TLS, in lower case. Two matches are equal if they ask for
    the same, whatever their text.
    """

    text: str = field(compare=False)
    ip_version: int = 0
    ip: bool | None = None
    ethertype: int | None = None
    protocol: int | None = None
    src: Network | None = None
    dst: Network | None = None
    src_ports: PortRange | None = None
    dst_ports: PortRange | None = None
    any_port: PortRange | None = None
    vlan: int | None = None
    port: str | None = None
    server_name: str | None = None

    def __str__(self) -> str:
        """The match in its shortest usual form; `parse_match` reads it back to an equal match."""
        # `port N` stands before the prefixes: behind one it would mean that side's port.
        words = [
            *self._layer_words(),
            _port_words("port", self.any_port),
            _side_words("src", self.src, self.src_ports),
            _side_words("dst", self.dst, self.dst_ports),
            "" if self.vlan is None else f"vlan {self.vlan}",
            "" if self.port is None else f"from {self.port}",
            "" if self.server_name is None else f"sni {self.server_name}",
        ]
        return " ".join(word for word in words if word) or "any"

    def covers(self, other: Match) -> bool:
        """True if every flow that meets `other` meets this match too."""
        either_port = (other.any_port, other.src_ports, other.dst_ports)
        return (
            self.ip_version in (0, other.ip_version)
            and all(
                getattr(self, name) in (None, getattr(other, name))
                for name in ("ip", "ethertype", "protocol", "vlan", "port")
            )
            and _holds(self.src, other.src)
            and _holds(self.dst, other.dst)
            and _spans(self.src_ports, other.src_ports)
            and _spans(self.dst_ports, other.dst_ports)
            and any(_spans(self.any_port, ports) for ports in either_port)
            and _names(self.server_name, other.server_name)
        )

    def _layer_words(self) -> list[str]:
        named = {number: name for name, number in PROTOCOLS.items()}
        icmp = {(4, PROTOCOL_ICMP): "icmp", (6, PROTOCOL_ICMP6): "icmp6"}
        if self.ethertype is not None:
            return ["arp" if self.ethertype == ETHERTYPE_ARP else f"ethertype 0x{self.ethertype:04x}"]
        if self.ip is False:
            return ["non-ip"]
        if self.protocol is not None and (self.ip_version, self.protocol) in icmp:
            return [icmp[self.ip_version, self.protocol]]
        prefixed = self.src is not None or self.dst is not None
        ported = self.src_ports or self.dst_ports or self.any_port
        words = []
        if self.ip_version and not prefixed:
            words.append(f"ip{self.ip_version}")
        elif self.ip and not prefixed and not ported and self.protocol is None:
            words.append("ip")
        if self.protocol is not None:
            words.append(named.get(self.protocol, f"proto {self.protocol}"))
        return words


def parse_match(text: str) -> Match:
    """Reads a match. Raises BadValueError with the column (from 1) of the word that cannot stand there."""
    if not isinstance(text, str):
        raise BadValueError(shown(text), 'a match such as "ip" or "udp dst port 53"')
    if len(text) > TEXT_CHARACTERS_MAX:
        raise BadValueError(f"{len(text)} characters", f"at most {TEXT_CHARACTERS_MAX}")
    return _Reader(text).read()


Constraints = dict[str, object]

# What each term of one word asks for. A field that two terms want to set differently is a contradiction.
_WORDS: Mapping[str, Constraints] = {
    "any": {},
    "ip": {"ip": True},
    "ip4": {"ip": True, "ip_version": 4},
    "ipv4": {"ip": True, "ip_version": 4},
    "ip6": {"ip": True, "ip_version": 6},
    "ipv6": {"ip": True, "ip_version": 6},
    "non-ip": {"ip": False},
    "arp": {"ip": False, "ethertype": ETHERTYPE_ARP},
    "icmp": {"ip": True, "ip_version": 4, "protocol": PROTOCOL_ICMP},
    "icmp6": {"ip": True, "ip_version": 6, "protocol": PROTOCOL_ICMP6},
    **{name: {"ip": True, "protocol": number} for name, number in PROTOCOLS.items()},
}


@dataclass(frozen=True)
class _Token:
    text: str
    column: int

    def __str__(self) -> str:
        return f"{shown(self.text)} at column {self.column}"


class _Reader:
    """Reads terms from left to right and remembers which word asked for what."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [_Token(word.group(), word.start() + 1) for word in re.finditer(r"\S+", text)]
        self.position = 0
        self.fields: Constraints = {}
        self.asked_by: dict[str, _Token] = {}
        self.terms: Mapping[str, Callable[[_Token], Constraints]] = {
            "not": self._not,
            "ethertype": self._ethertype,
            "proto": self._protocol,
            "src": self._side,
            "dst": self._side,
            "port": lambda _: {"ip": True, "any_port": self._ports()},
            "vlan": lambda _: {"vlan": self._number("a VLAN", 1, 4094)},
            "from": self._from,
            "sni": self._server_name,
        }

    def read(self) -> Match:
        if not self.tokens:
            raise BadValueError(shown(self.text), 'at least one term, such as "any" or "ip"')
        while self.position < len(self.tokens):
            first = self._next("a term")
            self._require(first, self._term(first))
            if self._peek() == "and":
                self.position += 1
                self._peek_required("a term")
        self._check_ports()
        return Match(text=self.text, **self.fields)  # type: ignore[arg-type]

    def _term(self, token: _Token) -> Constraints:
        if token.text in _WORDS:
            return _WORDS[token.text]
        if token.text in self.terms:
            return self.terms[token.text](token)
        words = [*_WORDS, *self.terms]
        raise BadValueError(str(token), ", ".join(words), nearest(token.text, words))

    def _require(self, token: _Token, constraints: Constraints) -> None:
        for name, value in constraints.items():
            if name in self.fields and self.fields[name] != value:
                raise BadValueError(f"{token} after {self.asked_by[name]}", "terms that can all hold for one flow")
            self.fields[name] = value
            self.asked_by.setdefault(name, token)

    def _check_ports(self) -> None:
        ported = [name for name in ("src_ports", "dst_ports", "any_port") if name in self.fields]
        if ported and self.fields.get("protocol", 6) not in PROTOCOLS.values():
            raise BadValueError(
                f"{self.asked_by[ported[0]]} with {self.asked_by['protocol']}", "ports with tcp, udp or sctp only"
            )

    def _peek(self) -> str | None:
        return self.tokens[self.position].text if self.position < len(self.tokens) else None

    def _peek_required(self, what: str) -> None:
        if self._peek() is None:
            raise BadValueError(f"the end of {shown(self.text)}, column {len(self.text) + 1}", what)

    def _next(self, what: str) -> _Token:
        self._peek_required(what)
        token = self.tokens[self.position]
        self.position += 1
        return token

    def _number(self, what: str, low: int, high: int) -> int:
        what = f"{what} from {low} to {high}"
        token = self._next(what)
        return _parse_number(token, token.text, what, low, high)

    def _not(self, _: _Token) -> Constraints:
        token = self._next('"ip"')
        if token.text != "ip":
            raise BadValueError(str(token), 'only "ip" after "not"')
        return {"ip": False}

    def _ethertype(self, _: _Token) -> Constraints:
        token = self._next("an Ethernet type such as 0x88cc")
        if not re.fullmatch(r"0x[0-9A-Fa-f]{1,4}", token.text) or int(token.text, 16) < 0x600:
            raise BadValueError(str(token), "0x0600 to 0xffff")
        number = int(token.text, 16)
        if number in ETHERTYPES_VLAN:
            raise BadValueError(str(token), "the type behind VLAN tags", 'write "vlan N" for a VLAN')
        version = {ETHERTYPE_IP4: 4, ETHERTYPE_IP6: 6}.get(number)
        return {"ip": True, "ip_version": version} if version else {"ip": False, "ethertype": number}

    def _protocol(self, _: _Token) -> Constraints:
        return {"ip": True, "protocol": self._number("an IP protocol number", 0, 255)}

    def _from(self, _: _Token) -> Constraints:
        token = self._next("a port of the node")
        if not NAME.fullmatch(token.text):
            raise BadValueError(str(token), "the name of a port: 1 to 32 letters, digits, - and _")
        return {"port": token.text}

    def _server_name(self, _: _Token) -> Constraints:
        token = self._next("a server's name")
        name = token.text.lower().removesuffix(".")
        if len(name) > SERVER_NAME_MAX or not SERVER_NAME.fullmatch(name):
            raise BadValueError(str(token), "a host name such as www.example.com, or *.example.com for all below it")
        return {"ip": True, "protocol": PROTOCOLS["tcp"], "server_name": name}

    def _side(self, side: _Token) -> Constraints:
        constraints: Constraints = {"ip": True}
        if self._peek() != "port":
            network = _parse_network(self._next("an address, a prefix, or port"))
            constraints |= {"ip_version": network.version, side.text: network}
        if self._peek() == "port":
            self.position += 1
            constraints[f"{side.text}_ports"] = self._ports()
        return constraints

    def _ports(self) -> PortRange:
        what = "a port from 0 to 65535 or a range such as 8000-8099"
        token = self._next(what)
        low_text, dash, high_text = token.text.partition("-")
        low = _parse_number(token, low_text, what, 0, 65535)
        high = _parse_number(token, high_text, what, 0, 65535) if dash else low
        if low > high:
            raise BadValueError(str(token), "the lower port first", f'did you mean "{high}-{low}"?')
        return low, high


def _parse_number(token: _Token, digits: str, what: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not low <= int(digits) <= high:
        raise BadValueError(str(token), what)
    return int(digits)


def _parse_network(token: _Token) -> Network:
    allowed = "an address or prefix such as 10.0.0.0/8 or 2001:db8::/32"
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", token.text):
        raise BadValueError(str(token), allowed)
    try:
        network = ipaddress.ip_network(token.text, strict=False)
    except ValueError:
        raise BadValueError(str(token), allowed) from None
    if network.network_address != ipaddress.ip_address(token.text.partition("/")[0]):
        raise BadValueError(str(token), "a prefix whose host bits are zero", f'did you mean "{network}"?')
    return network


def _port_words(word: str, ports: PortRange | None) -> str:
    if ports is None:
        return ""
    low, high = ports
    return f"{word} {low}" if low == high else f"{word} {low}-{high}"


def _side_words(side: str, network: Network | None, ports: PortRange | None) -> str:
    if network is None:
        return _port_words(f"{side} port", ports)
    return f"{side} {network} {_port_words('port', ports)}".rstrip()


def _holds(outer: Network | None, inner: Network | None) -> bool:
    if outer is None:
        return True
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _names(outer: str | None, inner: str | None) -> bool:
    if outer is None or outer == inner:
        return True
    return inner is not None and outer.startswith("*.") and inner.removeprefix("*").endswith(outer[1:])


def _spans(outer: PortRange | None, inner: PortRange | None) -> bool:
    return outer is None or (inner is not None and outer[0] <= inner[0] and inner[1] <= outer[1])
