"""Routes: where packets go by the longest prefix that matches their destination annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeos.click.arguments import rest
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import ArgumentError, IPAddress, IPPrefix, Kind, Prefix, Unsigned, bad, raw32

CHAIN_MAX = 8
"""Routes up to which they are compared one by one; more are searched."""
CHANGES_MAX = 64
"""Routes that may be added while a guest runs."""


@dataclass(frozen=True)
class Route:
    """A prefix, the gateway (0: none) and the output."""

    prefix: Prefix
    gateway: int
    output: int

    @property
    def first(self) -> int:
        """The first address of the prefix."""
        return self.prefix.address & self.prefix.mask

    @property
    def last(self) -> int:
        """The last address of the prefix."""
        return self.first | ~self.prefix.mask & 0xFFFFFFFF


class RouteKind(Kind):
    """`ADDR/MASK [GW] OUT`."""

    @property
    def allowed(self) -> str:
        return "a prefix, a gateway's address or none, and an output, such as 10.0.0.0/8 192.168.1.1 0"

    @property
    def usage(self) -> str:
        return "prefix [gateway] output"

    def parse(self, text: str) -> Route:
        words = text.split()
        if len(words) not in (2, 3):
            raise bad(text, self.allowed)
        gateway = 0
        try:
            prefix = IPPrefix(host=True).parse(_whole(words[0]))
            if len(words) == 3 and words[1] != "-":
                gateway = int(IPAddress().parse(words[1]))
            return Route(prefix, gateway, Unsigned(255).parse(words[-1]))
        except ArgumentError as error:
            raise ArgumentError(f"{error} (a route is {self.allowed})") from None


def _whole(prefix: str) -> str:
    """`18.26/16` and `0/0` with all four parts."""
    address, slash, mask = prefix.partition("/")
    parts = address.split(".")
    return ".".join(parts + ["0"] * (4 - len(parts))) + slash + mask if slash else prefix


def intervals(routes: list[Route]) -> list[tuple[int, int]]:
    """Disjoint parts of the address space in order: the first address and the index of the best route, -1 for none."""
    points = sorted({0, *(r.first for r in routes), *(r.last + 1 for r in routes if r.last < 0xFFFFFFFF)})
    by_start = sorted(range(len(routes)), key=lambda i: (routes[i].first, routes[i].prefix.length))
    open_routes: list[int] = []
    following = 0
    result: list[tuple[int, int]] = []
    for point in points:
        while open_routes and routes[open_routes[-1]].last < point:
            open_routes.pop()
        while following < len(by_start) and routes[by_start[following]].first == point:
            open_routes.append(by_start[following])
            following += 1
        best = open_routes[-1] if open_routes else -1
        if not result or result[-1][1] != best:
            result.append((point, best))
    return result


class StaticIPLookup(Element):
    """Sends packets out of the output of the longest prefix that their destination annotation has, or drops them.

    A route's gateway, where it has one, becomes the destination annotation.
    """

    ports = "1/-"
    processing = "h/h"
    parameters = (rest("ROUTE", RouteKind()),)
    handlers: ClassVar[Sequence[Read | Write]] = (Read("table"),)
    template = "ip_lookup.h"
    changing = 0

    def check(self) -> None:
        if not self["ROUTE"]:
            raise self.error("found no route; allowed: one or more, such as 0.0.0.0/0 0")
        seen: set[tuple[int, int]] = set()
        for index, route in enumerate(self["ROUTE"]):
            key = (route.first, route.prefix.mask)
            if key in seen:
                raise self.error("there is a route for this prefix already", ("ROUTE", index))
            seen.add(key)
            if route.output >= self.n_outputs:
                raise self.error(f"found output {route.output}; connected: {self.n_outputs}", ("ROUTE", index))

    def routes(self) -> list[Route]:
        """Longest prefixes first."""
        return sorted(self["ROUTE"], key=lambda route: (-route.prefix.length, route.first))

    def defines(self) -> dict[str, str | int]:
        return {"ROUTES": len(self["ROUTE"]), "CHANGES": self.changing}

    def code(self) -> str:
        routes = self.routes()
        rows = ", ".join(
            f"{{0x{raw32(r.first):08x}u, 0x{raw32(r.prefix.mask):08x}u, 0x{raw32(r.gateway):08x}u, {r.output}}}"
            for r in routes
        )
        lines = [f"static const click_route ME(routes)[] = {{{rows}}};"]
        lines.append("static uint32_t ME(search)(uint32_t address) {")
        if len(routes) <= CHAIN_MAX:
            for index, r in enumerate(routes):
                lines.append(
                    f"    if ((address & 0x{raw32(r.prefix.mask):08x}u) == 0x{raw32(r.first):08x}u) return {index};"
                )
            lines.append("    return CLICK_NO_ROUTE;")
        else:
            parts = intervals(routes)
            lines.append(f"    static const uint32_t starts[] = {{{', '.join(f'{start}u' for start, _ in parts)}}};")
            best = ", ".join("65535" if index < 0 else str(index) for _, index in parts)
            lines.append(f"    static const uint16_t best[] = {{{best}}};")
            lines.append(f"    return best[click_search_interval(starts, {len(parts)}, click_swap32(address))];")
        return "\n".join([*lines, "}"])


class LinearIPLookup(StaticIPLookup):
    """StaticIPLookup whose routes can be changed while it runs, by handlers; 64 may be added."""

    ports = "1/-"
    handlers = (Read("table"), Write("add"), Write("set"), Write("remove"), Write("ctrl"))
    changing = CHANGES_MAX


class RadixIPLookup(LinearIPLookup):
    """StaticIPLookup whose routes can be changed while it runs, by handlers; 64 may be added."""

    ports = "1/-"
