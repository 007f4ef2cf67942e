"""The language: what a configuration means, what is wrong with one, and that no text brings the compiler down."""

from __future__ import annotations

import random
import time

import pytest
from click_harness import errors
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeos.click import syntax
from edgeos.click.emit import emit
from edgeos.click.parser import parse
from edgeos.click.router import Router, load
from edgeos.click.source import ClickError, Source

SECONDS_MAX = 240
"""Far above what any of these take: a hang is what is looked for."""


def router(text: str, **variables: str) -> Router:
    return load(Source("test.click", text), variables)


def flat(text: str, **variables: str) -> str:
    """The configuration without its compound elements, as text."""
    return str(router(text, **variables).configuration)


def wiring(text: str, **variables: str) -> set[str]:
    return {line.rstrip(";") for line in flat(text, **variables).splitlines() if "->" in line}


def one_error(text: str) -> str:
    found = errors(text)
    assert len(found) == 1, found
    return found[0]


# ---- What it means ----


def test_chains_ports_and_anonymous_elements() -> None:
    assert wiring("FromDevice(a) -> t :: Tee -> Discard; t [1] -> [0] Idle;") == {
        "FromDevice@1 [0] -> [0] t",
        "t [0] -> [0] Discard@3",
        "t [1] -> [0] Idle@4",
    }


def test_multiple_declarations_and_comments() -> None:
    text = """// one line
        a, b :: Counter; /* several
        lines */ FromDevice(x /* not , a comma */) -> a -> b -> Discard;"""
    assert wiring(text) == {"FromDevice@3 [0] -> [0] a", "a [0] -> [0] b", "b [0] -> [0] Discard@4"}


def test_an_element_may_be_named_before_it_is_declared() -> None:
    assert "late [0] -> [0] d" in wiring("FromDevice(a) -> late; late -> d; late :: Counter; d :: Discard;")


def test_arrows_that_join_all_ports() -> None:
    text = "FromDevice(a) -> t :: Tee(2) => m :: { input[0] -> Null -> [0]output; input[1] -> Null -> [1]output }"
    assert len(wiring(f"{text} => Discard, Discard;")) == 5
    assert wiring("FromDevice(a) -> t :: Tee(2); t [0, 1] => Discard, Discard;") >= {"t [1] -> [0] Discard@4"}


def test_compound_elements_with_arguments_and_keywords() -> None:
    text = """elementclass Pass { $n, COLOR $c | input -> Strip($n) -> Paint($c) -> output }
        FromDevice(a) -> p :: Pass(14, COLOR 3) -> Discard;"""
    assert "p/Strip@3 :: Strip(14);" in flat(text)
    assert "p/Paint@4 :: Paint(3);" in flat(text)
    assert "argument COLOR $c is missing" in one_error(text.replace(", COLOR 3", ""))
    assert "it has 2 arguments, found 3" in one_error(text.replace("(14", "(1, 14"))


def test_the_rest_of_the_arguments() -> None:
    text = """elementclass Sort { __REST__ $rest | input -> c :: Classifier($rest); c[0], c[1] => [0, 1] output }
        FromDevice(a) -> s :: Sort(12/0800, -); s[0], s[1] => Discard, Discard;"""
    assert "s/c :: Classifier(12/0800, -);" in flat(text)


def test_overloading_takes_the_alternative_that_fits() -> None:
    text = """elementclass Either { input -> Strip(1) -> output || $n | input -> Strip($n) -> output
            || $n, $m | input -> Strip($n) -> Strip($m) -> output }
        FromDevice(a) -> x :: Either -> y :: Either(2) -> z :: Either(3, 4) -> Discard;"""
    assert [line for line in flat(text).splitlines() if ":: Strip" in line] == [
        "x/Strip@3 :: Strip(1);", "y/Strip@3 :: Strip(2);", "z/Strip@3 :: Strip(3);", "z/Strip@4 :: Strip(4);"
    ]  # fmt: skip
    assert "it has 2 arguments, found 3" in one_error(text.replace("(3, 4)", "(3, 4, 5)"))


def test_a_class_may_be_extended_by_what_it_was() -> None:
    text = """elementclass X { input -> Strip(1) -> output }
        elementclass X { $a | input -> Strip($a) -> output || ... }
        FromDevice(a) -> X -> X(9) -> Discard;"""
    assert {"Strip(1)", "Strip(9)"} <= {
        line.split(":: ")[1].rstrip(";") for line in flat(text).splitlines() if "::" in line
    }
    assert "needs an elementclass Y before it" in one_error("elementclass Y { input -> output || ... }")


def test_other_names_for_classes_and_inner_classes() -> None:
    text = """elementclass Trash Discard;
        elementclass Outer { elementclass Inner { input -> Paint(2) -> output } input -> Inner -> output }
        FromDevice(a) -> Outer -> Trash;"""
    assert ":: Paint(2)" in flat(text)
    assert "no element 'Inner'" in one_error(text + " FromDevice(b) -> Inner -> Trash;")


def test_a_compound_element_may_pass_straight_through() -> None:
    assert wiring("FromDevice(a) -> { input -> output } -> Discard;") == {"FromDevice@1 [0] -> [0] Discard@3"}


def test_variables() -> None:
    text = "define($n 3, $m $n, $k 12/0800); FromDevice(a) -> Strip($m) -> Strip(${n}1) -> Classifier($k) -> Discard;"
    assert {"Strip(3)", "Strip(31)", "Classifier(12/0800)"} <= {
        line.split(":: ")[1].rstrip(";") for line in flat(text).splitlines() if "::" in line
    }
    assert ":: Strip(8)" in flat(text, n="8")
    assert "there is no variable $nn" in errors(text.replace("$m)", "$nn)"))[0]
    assert "found no variable" in one_error("define(n 3);")


def test_quoted_text_keeps_its_commas_and_parentheses() -> None:
    loaded = router('FromDevice(a) -> p :: Print("x, (y)") -> Discard;')
    assert next(e for e in loaded.elements if e.name == "p")["LABEL"] == b"x, (y)"


def test_required_packages_are_known() -> None:
    assert router("require(clickonly); FromDevice(a) -> Discard;").configuration.requirements == ("clickonly",)


# ---- What is wrong ----


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        (
            "FromDevice(a) -> Discrad;",
            "1:18",
            "there is no element 'Discrad' and no element class of this name; nearest: Discard",
        ),
        ("FromDevice(a)\n  -> ipfilter(allow all) -> Discard;", "2:6", "nearest: IPFilter"),
        ("FromDevice(a) -> Tee(3) -> Discard;", "1:22", "found 3 for 1 connected outputs"),
        ("FromDevice(a) -> Counter;", "1:18", "output 0 of 'Counter@2' is not connected"),
        ("Counter -> Discard;", "1:1", "input 0 of 'Counter@1' is not connected"),
        ("FromDevice(a) -> [1] Counter -> Discard;", "1:22", "'Counter@2' has no input 1: Counter has 1 of them"),
        ("FromDevice(a) -> Discard [1] -> Discard;", "1:18", "'Discard@2' has no output 1"),
        ("FromDevice(a) -> Queue -> Tee -> Discard;", "1:18", "fix: an Unqueue between them"),
        ("FromDevice(a) -> Unqueue -> Discard;", "1:1", "fix: a Queue between them"),
        ("f :: FromDevice(a); f -> Discard; f -> Discard;", "1:35", "has two connections"),
        (
            "a, b :: Queue; FromDevice(0) -> a -> u :: Unqueue -> Idle; FromDevice(1) -> b -> u;",
            "1:77",
            "pull input 0 of 'u'",
        ),
        ("a :: Counter; a :: Counter;", "1:15", "'a' is declared already, in line 1"),
        ("Counter :: Counter;", "1:1", "is an element class"),
        ("FromDevice(a) -> Strip -> Discard;", "1:18", "LENGTH is missing"),
        ("FromDevice(a) -> Strip(x) -> Discard;", "1:24", "LENGTH: found"),
        ("FromDevice(a) -> Strip(1, LENGTH 2) -> Discard;", "1:27", "LENGTH is given twice"),
        ("FromDevice(a) -> Strip(1, 2) -> Discard;", "1:27", "an argument too many"),
        ("FromDevice(a) -> Queue(CAPACTIY 5) -> Discard;", "1:24", "CAPACITY"),
        ("FromDevice(a) -> Discard; FromDevice(a) -> Discard;", "1:27", "take the packets of the same device"),
        ("FromDevice(a) - Discard;", "1:15", "'-' is not part of the language"),
        ("FromDevice(a -> Discard;", "1:11", "'(' without a ')'"),
        ("FromDevice(a) -> Discard);", "1:25", "')' without a '('"),
        ("/* never closed", "1:1", "comment without an end"),
        ("FromDevice(a) -> ;", "1:18", "found ';'; expected: "),
        ("FromDevice(a) ->", "1:16", "found the end"),
        ("elementclass A { input -> A -> output } FromDevice(a) -> A -> Discard;", "1:27", "contains itself: A -> A"),
        ("elementclass A { B } elementclass B { A } A;", "1:18", ""),
        ("x [65536] -> Discard;", "1:4", "port numbers go up to 65535"),
        ("FromDevice(a) -> { input -> [1]output } -> Discard;", "1:18", ""),
        ("FromDevice(a) -> Discard; input -> Discard;", "1:27", ""),
        ("FromDevice(17) -> Discard;", "1:1", "there is no device 17; allowed: 0 to 15"),
        ("elementclass A { input[1] -> output } FromDevice(a) -> A -> Discard;", "1:", ""),
    ],
)
def test_mistakes_have_a_place_and_a_reason(text: str, position: str, message: str) -> None:
    found = errors(text)
    assert found
    assert any(error.startswith(f"test.click:{position}") and message in error for error in found), found


def test_each_mistake_is_found_and_shown_with_its_line() -> None:
    text = "FromDevice(a) -> Strip(x) -> Discard;\nFromDevice(b) ->\tStrip(y) -> Discard;\n"
    assert [error.split(":")[1:3] for error in errors(text)] == [["1", "24"], ["2", "24"]]
    with pytest.raises(ClickError) as caught:
        router(text)
    assert "  FromDevice(b) -> Strip(y) -> Discard;\n                         ^" in str(caught.value)


def test_errors_say_nothing_that_a_terminal_would_act_on() -> None:
    with pytest.raises(ClickError) as caught:
        router("FromDevice(a) -> Strip(\x1b[31m) -> Discard; \x07")
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)


# ---- What is absurd ----


def bounded(text: str) -> list[str]:
    """The errors of a text, found within bounded time."""
    start = time.monotonic()
    found = errors(text)
    assert time.monotonic() - start < SECONDS_MAX
    return found


def test_ten_thousand_elements_compile() -> None:
    text = "FromDevice(a) " + "".join(f"-> c{n} :: Counter " for n in range(10_000)) + "-> Discard;"
    start = time.monotonic()
    code = emit(router(text))
    assert time.monotonic() - start < SECONDS_MAX
    assert code.count("#include <click/elements/counter.h>") == 10_000


def test_ten_thousand_elements_in_compound_ones() -> None:
    chain = "input " + "-> Null " * 100 + "-> output"
    text = f"elementclass Many {{ {chain} }} FromDevice(a) " + "-> Many " * 100 + "-> Discard;"
    start = time.monotonic()
    assert len(router(text).elements) == 10_002
    assert time.monotonic() - start < SECONDS_MAX


def test_compound_elements_that_double() -> None:
    classes = "elementclass C0 { input -> Null -> output } " + "".join(
        f"elementclass C{n} {{ input -> C{n - 1} -> C{n - 1} -> output }} " for n in range(1, 60)
    )
    assert "that are allowed" in bounded(f"{classes} FromDevice(a) -> C59 -> Discard;")[0]
    hollow = classes.replace("-> Null ", "")
    assert bounded(f"{hollow} FromDevice(a) -> C59 -> Discard;")


def test_variables_that_double() -> None:
    text = "define($v0 xxxxxxxx); " + "".join(f"define($v{n} $v{n - 1}$v{n - 1}); " for n in range(1, 60))
    assert "characters; allowed" in bounded(text)[0]


def test_depth() -> None:
    for depth in (9, 5000):
        text = "FromDevice(a) -> " + "{ input -> " * depth + "Null" + " -> output }" * depth + " -> Discard;"
        assert bool(bounded(text)) == (depth > 9)
    assert bounded("FromDevice(a) -> Print(" + "(" * 100_000 + ")" * 100_000 + ") -> Discard;") is not None
    assert bounded("{" * 100_000)
    assert bounded("FromDevice(a) -> IPFilter(allow " + "(" * 5000 + "tcp" + ")" * 5000 + ") -> Discard;")
    assert bounded("FromDevice(a) -> IPFilter(allow " + "not " * 50_000 + "tcp) -> Discard;")


def test_many_connections_and_ports() -> None:
    every = ", ".join(str(n) for n in range(1000))
    assert bounded(f"t :: Tee; FromDevice(a) -> t; t [{every}] => Discard;") == []
    assert bounded("FromDevice(a) -> t :: Tee; t[65535] -> Discard;")
    assert bounded("elementclass X { input[65535] -> output } FromDevice(a) -> X -> Discard;")


@pytest.mark.parametrize(
    "argument",
    [
        "9" * 100_000,
        "-" * 10_000,
        "0x" + "f" * 10_000,
        "1e" + "9" * 1000,
        '"' * 9999,
        "\\" * 9999,
        "10." * 5000,
        "$" * 5000,
        "\0",
    ],
)
def test_absurd_arguments(argument: str) -> None:
    for element in (
        "Strip",
        "IPFilter",
        "Classifier",
        "CheckIPHeader",
        "RatedUnqueue",
        "Queue",
        "IPRewriter",
        "Search",
        "ARPQuerier",
    ):
        bounded(f"FromDevice(a) -> Queue -> {element}({argument}) -> Discard;")


def test_patterns_that_would_make_a_large_graph() -> None:
    terms = " and ".join(f"(src net 10.{n}.0.0/16 or dst port {n} or ip ttl {n})" for n in range(200))
    assert bounded(f"FromDevice(a) -> IPFilter(allow {terms}) -> Discard;") == []
    rules = ", ".join(f"allow ip[{4 * n % 60}:4] & {n + 1} = {n}" for n in range(2000))
    text = f"FromDevice(a) -> IPFilter({rules}) -> Discard;"
    start = time.monotonic()
    emit(router(text))
    assert time.monotonic() - start < SECONDS_MAX


# ---- Printing and reading again; texts at random ----

NAMES = st.sampled_from(["a", "b2", "_c", "d@1", "Counter", "input", "output", "x/y"])
CONFIGS = st.sampled_from(["", "1", "a, b", '"quoted ) ("', "$v", "\\<00>", "(nested)", " spaced ", "/* c */ x"])
PORTS = st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple))


def nodes(depth: int) -> st.SearchStrategy[tuple[syntax.Statement, ...]]:
    """Statements whose compound elements lie so deep."""
    of: st.SearchStrategy[syntax.ClassReference] = NAMES.map(syntax.ClassName)
    config = st.one_of(st.none(), CONFIGS.map(syntax.Config))
    elements: list[st.SearchStrategy[object]] = [
        st.builds(syntax.Named, NAMES),
        st.builds(syntax.Declared, NAMES, of, config),
        st.builds(syntax.Anonymous, of, CONFIGS.map(syntax.Config)),
    ]
    if depth:
        formals = st.lists(
            st.builds(syntax.Formal, st.sampled_from(["v", "w"]), st.sampled_from(["", "KEY"])), max_size=2
        ).map(tuple)
        compound = st.builds(
            syntax.Compound,
            st.lists(st.builds(syntax.Body, formals, nodes(depth - 1)), min_size=1, max_size=2).map(tuple),
            st.booleans(),
        )
        elements += [st.builds(syntax.Anonymous, compound, config), st.builds(syntax.Declared, NAMES, compound, config)]
        of = st.one_of(of, compound)
    element = st.one_of(*elements)

    @st.composite
    def chain(draw: st.DrawFn) -> syntax.Chain:
        count = draw(st.integers(1, 3))
        groups = []
        for place in range(count):
            ends = []
            for _ in range(draw(st.integers(1, 2))):
                inputs = draw(PORTS) if place else None
                ends.append(syntax.End(draw(element), inputs, draw(PORTS)))
            groups.append(tuple(ends))
        return syntax.Chain(tuple(groups), tuple(draw(st.sampled_from(["->", "=>"])) for _ in range(count - 1)))

    statement = st.one_of(
        chain(),
        st.builds(syntax.ElementClass, NAMES.filter(lambda name: "/" not in name), of),
        st.builds(syntax.Require, CONFIGS.map(syntax.Config)),
        st.builds(syntax.Define, CONFIGS.map(syntax.Config)),
    )
    return st.lists(statement, max_size=3).map(tuple)


@given(nodes(2).map(syntax.Script))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_printed_reads_as_the_same(script: syntax.Script) -> None:
    assert parse(Source("test.click", str(script))) == script


EXAMPLES = [
    'elementclass A { $x, K $y | input -> Strip($x) -> Paint($y) -> output || ... } define($v 3); require(x);',
    "FromDevice(lan) -> c :: Classifier(12/0806 20/0001, 12/0800 !14/4?, -); c[0], c[1], c[2] => Idle, Idle, Idle;",
    "a, b :: Queue(7); FromDevice(1) -> a -> Unqueue(-1) -> [0] b [0] -> RatedUnqueue(9, BURST_SIZE 3) -> ToDevice(2);",
    "FromDevice(x) -> IPFilter(allow src net 10/8 and (tcp dst port 80 or udp), 1 icmp type echo ? tcp : ip ttl > 3);",
    "n :: IPRewriter(pattern 1.2.3.4 1024-65535# - - 0 1, drop, lb); lb :: RoundRobinIPMapper(- - 10.0.0.1 - 0 1);",
    'FromDevice(a) -> Search("GET /", \\<90 90>, NOCASE true) -> ToDevice(b); // the end\n/* really */',
]  # fmt: skip
PIECES = ["->", "=>", "::", "{", "}", "|", "||", "...", "(", ")", "[", "]", ",", ";", "$v", '"', "'", "\\", "//",
    "/*", "*/", "\n", "\0",
          "elementclass", "define", "require", "input", "output", "0", "-1", "99999999999999999999", "10.0.0.0/8",
              "é", "\u202e"]  # fmt: skip


@given(st.text(max_size=200))
@example("\ud800")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_configuration_or_has_errors_with_positions(text: str) -> None:
    assert all(error.startswith("test.click:") for error in errors(text))


@pytest.mark.parametrize("seed", range(8))
def test_mutated_configurations_end_in_errors_with_positions(seed: int) -> None:
    source = random.Random(seed)
    start = time.monotonic()
    for _ in range(150):
        text = source.choice(EXAMPLES) + source.choice(EXAMPLES)
        for _ in range(source.choice((1, 1, 2, 5))):
            at = source.randrange(len(text) + 1)
            how = source.random()
            if how < 0.4:
                text = text[:at] + source.choice(PIECES) + text[at:]
            elif how < 0.7:
                text = text[:at] + text[at + source.randrange(1, 9) :]
            else:
                other = source.choice(EXAMPLES)
                text = text[:at] + other[source.randrange(len(other)) :][: source.randrange(1, 40)] + text[at:]
        assert all(error.startswith("test.click:") for error in errors(text)), text
    assert time.monotonic() - start < SECONDS_MAX


def test_a_flattened_configuration_reads_as_the_same() -> None:
    chains = [" -> ".join(f"Strip({n})" for n in range(count)) for count in (1, 5)]
    compound = [f"FromDevice(a) -> {{ input -> {chain} -> output }} -> Discard;" for chain in chains]
    for text in ["FromDevice(a) -> t :: Tee -> Discard; t[1] -> Discard;", *compound]:
        once = flat(text)
        assert flat(once) == once
