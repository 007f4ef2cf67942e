"""What packets say: many words sought in them at once."""

from __future__ import annotations

from dataclasses import dataclass

from edgeos.click.arguments import keyword, rest
from edgeos.click.automaton import Automaton, TooManyStatesError, build
from edgeos.click.element import Element, Read, Write
from edgeos.click.kinds import ArgumentError, Boolean, Kind, Text, Word, bad, literal, unquote
from edgeos.click.prefilter import prefilter

RULES_MAX = 4096
WORD_MAX = 256
TABLE_MAX = 1 << 21
"""Bytes of the automaton's table; the template's memory must hold it."""

ACTIONS = ("alert", "drop")


@dataclass(frozen=True)
class Rule:
    """A word that is sought, what is done with a packet that has it, and the name of the rule."""

    action: str
    word: bytes
    name: str


def parse_rule(line: str, number: int) -> Rule:
    """`ACTION "WORD" [NAME]`; the name is otherwise the rule's number. Raises ArgumentError."""
    action, _, remainder = line.strip().partition(" ")
    if action not in ACTIONS:
        raise bad(action, "alert or drop in front of a word in quotes")
    remainder = remainder.strip()
    end = _word_end(remainder)
    name = remainder[end:].strip() or str(number)
    if len(name) > 64 or not name.isprintable():
        raise ArgumentError("the name of a rule has at most 64 characters that can be printed")
    word = unquote(remainder[:end])
    if not 1 <= len(word) <= WORD_MAX:
        raise ArgumentError(f"found a word of {len(word)} bytes; allowed: 1 to {WORD_MAX}")
    return Rule(action, word, name)


def _word_end(text: str) -> int:
    """Where the quoted word at the start of a text ends."""
    if not text or text[0] not in "\"'":
        raise bad(text, r'a word in quotes, such as "GET /admin" or "\<90 90 90>"')
    at = 1
    while at < len(text) and text[at] != text[0]:
        at += 2 if text[at] == "\\" and text[0] == '"' else 1
    if at >= len(text):
        raise bad(text, f"a closing {text[0]}")
    return at + 1


class WordKind(Kind):
    """A word that is sought."""

    @property
    def allowed(self) -> str:
        return f'1 to {WORD_MAX} bytes, such as "GET /admin"'

    @property
    def usage(self) -> str:
        return "word"

    def parse(self, text: str) -> bytes:
        word = Text(WORD_MAX).parse(text)
        if not word:
            raise bad(text, self.allowed)
        return word


class Search(Element):
    r"""Looks for many words at once. Packets that have one leave by output 1, or are dropped; the others by output 0.

    Words are arguments, or rules in a FILE beside the configuration, one a line: `drop "WORD" NAME`, or `alert "WORD"
    NAME`, after which the packet goes on by output 0. NAME may be left out, # begins a comment, \<90 90> stands for
    bytes. Looks at the payload of TCP or UDP where the header is known, or, with PAYLOAD false, at all of the packet;
    NOCASE true takes letters in either case. A word that is spread over two packets is not found.
    """

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (
        rest("WORD", WordKind()),
        keyword("FILE", Word()),
        keyword("NOCASE", Boolean(), False),
        keyword("PAYLOAD", Boolean(), True),
    )
    action = True
    headers = ("prefilter.h",)
    handlers = (Read("matches"), Read("drops"), Read("alerts"), Read("rules"), Write("reset"))

    def check(self) -> None:
        self._rules = [Rule("drop", word, str(number)) for number, word in enumerate(self["WORD"], 1)]
        if self["FILE"] is not None:
            self._rules += self._from_file(self["FILE"])
        if not self._rules:
            raise self.error("found no word and no rule; allowed: one or more")
        if len(self._rules) > RULES_MAX:
            raise self.error(f"found {len(self._rules)} rules; allowed: {RULES_MAX}")
        try:
            self._automaton: Automaton = build([rule.word for rule in self._rules], self["NOCASE"])
        except TooManyStatesError:
            raise self.error("the words are too many; allowed: fewer or shorter ones") from None
        entries = len(self._automaton.table)
        size = entries * (2 if entries <= 65536 else 4)
        if size > TABLE_MAX:
            raise self.error(f"the words make a table of {size} bytes; allowed: {TABLE_MAX}, so fewer or shorter ones")

    def _from_file(self, name: str) -> list[Rule]:
        text = self.read_file(name, "FILE")
        rules = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.strip().startswith("#"):
                try:
                    rules.append(parse_rule(line, number))
                except ArgumentError as error:
                    raise self.error(f"{name}:{number}: {error}", "FILE") from None
        return rules

    def code(self) -> str:
        automaton, rules = self._automaton, self._rules
        flat = [place for places in automaton.finals for place in places]
        starts = [0]
        for places in automaton.finals:
            starts.append(starts[-1] + len(places))
        offsets = [state * automaton.class_count for state in automaton.table]
        rows = [
            ("uint8_t", "classes", automaton.classes),
            ("uint16_t" if len(offsets) <= 65536 else "uint32_t", "table", offsets),
            ("uint16_t", "final_rules", flat),
            ("uint32_t", "final_starts", starts),
            ("uint8_t", "drops_packet", [int(rule.action == "drop") for rule in rules]),
        ]
        lines = [f"static const {kind} ME({name})[] = {{{', '.join(map(str, data))}}};" for kind, name, data in rows]
        filters = prefilter([rule.word for rule in rules], self["NOCASE"])
        masks = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in filters)
        lines.append(f"static const click_prefilter ME(prefilter) = {{{masks}}};")
        names = ", ".join(literal(rule.name.encode()) for rule in rules)
        return "\n".join([*lines, f"static const char *const ME(names)[] = {{{names}}};"])

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {
            "RULES": f"{len(self._rules)}u",
            "CLASSES": f"{self._automaton.class_count}u",
            "FIRST_FINAL": f"{self._automaton.first_final}u",
        }
