"""What chooses an output by a packet's bytes, by turns, by chance or by a hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeos.click import decision
from edgeos.click.arguments import required, rest
from edgeos.click.byte_pattern import BytePatternError, parse_byte_pattern
from edgeos.click.element import Element
from edgeos.click.ip_expression import ExpressionError, parse_expression
from edgeos.click.kinds import ArgumentError, Kind, Unsigned

BASES = {
    "data": "p->data",
    "network": "p->network",
    "transport": "p->transport",
    "ether": "(p->network ? p->network - 14 : NULL)",
}
OUTPUTS_MAX = 256


class Pattern(Kind):
    """A pattern; its value is the expression that it means."""

    def __init__(self, usage: str, read: Callable[[str], decision.Expression]) -> None:
        object.__setattr__(self, "_usage", usage)
        object.__setattr__(self, "_read", read)

    _usage: str
    _read: Callable[[str], decision.Expression]

    @property
    def allowed(self) -> str:
        return self._usage

    def parse(self, text: str) -> decision.Expression:
        try:
            return self._read(text)
        except (ExpressionError, BytePatternError) as error:
            raise ArgumentError(str(error)) from None


class FilterRule(Kind):
    """An action, `allow`, `deny`, `drop` or the number of an output, and the pattern of the packets that it is for."""

    @property
    def allowed(self) -> str:
        return "allow, deny, drop or the number of an output, then a pattern"

    @property
    def usage(self) -> str:
        return "action pattern"

    def parse(self, text: str) -> tuple[int, decision.Expression]:
        action, pattern = [*text.split(None, 1), "", ""][:2]
        if action in ("allow", "accept"):
            output = 0
        elif action in ("deny", "drop", "reject"):
            output = decision.DROP
        elif action.isascii() and action.isdigit() and int(action[:6]) < OUTPUTS_MAX:
            output = int(action)
        else:
            raise ArgumentError(f"found {action or 'nothing'}; allowed: {self.allowed}")
        try:
            return output, parse_expression(pattern)
        except ExpressionError as error:
            raise ArgumentError(str(error)) from None


class _Decision(Element):
    """What becomes a decision graph."""

    processing = "h/h"
    template = "decision.h"

    def rules(self) -> Sequence[tuple[Any, int]]:
        """Patterns in their order, with their outputs."""
        raise NotImplementedError

    def code(self) -> str:
        return decision.to_c(decision.build(self.rules()), "ME(decide)", BASES)


class _Classifier(_Decision):
    """An output for each pattern."""

    def rules(self) -> Sequence[tuple[Any, int]]:
        return [(pattern, output) for output, pattern in enumerate(self["PATTERN"])]

    def check(self) -> None:
        if not self["PATTERN"]:
            raise self.error("found no pattern; allowed: one for each output")
        if self.n_outputs != len(self["PATTERN"]):
            raise self.error(f"found {len(self['PATTERN'])} patterns for {self.n_outputs} connected outputs")


class Classifier(_Classifier):
    """Sends each packet out of the output of the first PATTERN, of bytes, that it matches, or drops it.

    `12/0806 20/0001` is an ARP request: offset/value, in hex, with `?` for any digit, and `%mask` behind it where only
    some bits count; `!` negates, `-` is every packet.
    """

    ports = "1/-"
    parameters = (rest("PATTERN", Pattern("offset/value …", parse_byte_pattern)),)


class IPClassifier(_Classifier):
    """Sends each IP packet out of the output of the first PATTERN that it matches, or drops it.

    Patterns are those of IPFilter. The packet's IP header must be known, see CheckIPHeader and MarkIPHeader.
    """

    ports = "1/-"
    parameters = (rest("PATTERN", Pattern("pattern", parse_expression)),)


class IPFilter(_Decision):
    """Does to each IP packet what the first RULE says whose pattern it matches; others are dropped.

    A rule is `allow`, `deny`, `drop` or the number of an output, and a pattern, such as `src net 10.0.0.0/8 and tcp dst
    port 80`. The packet's IP header must be known, see CheckIPHeader and MarkIPHeader; `ether` tests need the Ethernet
    header in front of it, so CheckIPHeader(14) and no Strip.
    """

    ports = "1/-"
    parameters = (rest("RULE", FilterRule()),)

    def rules(self) -> Sequence[tuple[Any, int]]:
        return [(pattern, output) for output, pattern in self["RULE"]]

    def check(self) -> None:
        if not self["RULE"]:
            raise self.error("found no rule; allowed: one or more, such as allow all")
        for index, (output, _) in enumerate(self["RULE"]):
            if output >= self.n_outputs:
                raise self.error(f"found output {output}; connected: {self.n_outputs}", ("RULE", index))


class HashSwitch(Element):
    """Chooses the output by a hash of the LENGTH bytes from OFFSET on; shorter packets leave by output 0."""

    ports = "1/1-"
    processing = "h/h"
    parameters = (required("OFFSET", Unsigned(65535)), required("LENGTH", Unsigned(65535, 1)))


class RoundRobinSwitch(Element):
    """Sends packets out of its outputs in turn."""

    ports = "1/1-"
    processing = "h/h"


class RandomSwitch(Element):
    """Sends each packet out of an output chosen by chance."""

    ports = "1/1-"
    processing = "h/h"
