"""From a router to C: one translation unit with just the elements that it names. Its other half is guest/include/click.

Each instance's template is included once, between the constants and connections that belong to it. Functions are static
and calls direct, so that the compiler sees through the whole configuration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from edgeos.click.element import Element, handler_names
from edgeos.click.kinds import literal
from edgeos.click.router import Router

BURST: Final = 32
"""Messages of one burst, which bring a buffer each with them where elements hold packets (CLICK_BURST in packet.h)."""

POOL_MAX: Final = 256
"""Buffers for packets that elements hold or make; more are not asked for, since an FWP is small."""


def emit(router: Router) -> str:
    """The C of a router."""
    return "\n".join(_lines(router)) + "\n"


def pool_size(router: Router) -> int:
    """Buffers of the packet pool; 0 when nothing needs one."""
    wanted = min(sum(element.packets for element in router.elements), POOL_MAX)
    if any(element.holds for element in router.elements):
        return max(1, wanted) + BURST
    return wanted + 1 if wanted else 0


def _lines(router: Router) -> Iterator[str]:
    elements = router.elements
    yield f"/* Compiled from {_comment(Path(router.configuration.source.name).name)}. */"
    yield "#define EDGEOS_OWN_BURST"
    yield "#define EDGEOS_HEADROOM 64"
    yield f"#define CLICK_POOL {pool_size(router)}"
    yield f"#define CLICK_HOLDS {int(any(element.holds for element in elements))}"
    yield f"#define CLICK_TIMERS {int(router.timer)}"
    yield '#pragma GCC diagnostic ignored "-Wunused-function"'
    yield "#include <click/runtime.h>"
    for header in dict.fromkeys(header for element in elements for header in element.headers):
        yield f"#include <click/{header}>"
    yield ""
    for element in elements:
        yield from _prototypes(element)
    for element in elements:
        yield ""
        yield from _element(router, element)
    yield ""
    yield from _receive(elements)
    yield from _tasks(elements)
    if router.timer:
        yield from _timers(elements)
    yield from _start(elements)
    yield from _handlers(elements)
    yield "#include <click/main.h>"


def _comment(text: str) -> str:
    return (
        "".join(c if c.isprintable() and c.isascii() else "?" for c in text).replace("*/", "* /").replace("/*", "/ *")
    )


def _prototypes(element: Element) -> Iterator[str]:
    if any(element.pushes_in):
        yield f"static void {element.symbol}_push(uint32_t port, click_packet *p);"
    if not all(element.pushes_out):
        yield f"static click_packet *{element.symbol}_pull(uint32_t port);"


def _element(router: Router, element: Element) -> Iterator[str]:
    line, _ = router.configuration.source.position(element.span.start)
    yield f"/* {_comment(element.name)} :: {type(element).__name__}, line {line} */"
    defines: dict[str, str | int] = {
        "ME(x)": f"{element.symbol}_##x",
        "N_INPUTS": element.n_inputs,
        "N_OUTPUTS": element.n_outputs,
        **element.defines(),
    }
    for name, value in defines.items():
        yield f"#define {name} {value}"
    if element.timer:
        yield "static uint64_t ME(due);"
    yield from _outputs(router.outgoing[element])
    yield from _inputs(router.incoming[element])
    yield from filter(None, element.code().splitlines())
    yield f"#include <click/elements/{element.template_name()}>"
    if element.action:
        yield from _action(element)
    for name in defines:
        yield f"#undef {name.partition('(')[0]}"


def _outputs(targets: Mapping[int, tuple[Element, int]]) -> Iterator[str]:
    yield "static inline void ME(out)(uint32_t port, click_packet *p) {"
    if targets:
        yield "    switch (port) {"
        for port, (target, number) in sorted(targets.items()):
            yield f"    case {port}: {target.symbol}_push({number}, p); return;"
        yield "    }"
    else:
        yield "    (void)port;"
    yield "    click_drop(p);"
    yield "}"


def _inputs(sources: Mapping[int, tuple[Element, int]]) -> Iterator[str]:
    yield "static inline click_packet *ME(in)(uint32_t port) {"
    if sources:
        yield "    switch (port) {"
        for port, (source, number) in sorted(sources.items()):
            yield f"    case {port}: return {source.symbol}_pull({number});"
        yield "    }"
    else:
        yield "    (void)port;"
    yield "    return NULL;"
    yield "}"


def _action(element: Element) -> Iterator[str]:
    """Push and pull of an element that does the same to each packet, whichever way it comes."""
    if element.pushes_in[0]:
        yield "static void ME(push)(uint32_t port, click_packet *p) {"
        yield "    (void)port;"
        yield "    p = ME(action)(p);"
        yield "    if (p) OUT(0, p);"
        yield "}"
        return
    yield "static click_packet *ME(pull)(uint32_t port) {"
    yield "    (void)port;"
    yield "    for (uint32_t i = 0; i < CLICK_ROUNDS; i++) { /* past packets that end here */"
    yield "        click_packet *p = IN(0);"
    yield "        if (!p) break;"
    yield "        p = ME(action)(p);"
    yield "        if (p) return p;"
    yield "    }"
    yield "    return NULL;"
    yield "}"


def _receive(elements: Iterable[Element]) -> Iterator[str]:
    yield "static inline void click_receive(click_packet *p) {"
    yield "    switch (p->device) {"
    for element in elements:
        if element.in_port is not None:
            yield f"    case {element.in_port}: {element.symbol}_receive(p); return;"
    yield "    }"
    yield "    click_drop(p);"
    yield "}"


def _tasks(elements: Iterable[Element]) -> Iterator[str]:
    yield "static inline bool click_tasks(void) {"
    yield "    bool busy = false;"
    for element in elements:
        if element.task:
            yield f"    busy |= {element.symbol}_task();"
    yield "    return busy;"
    yield "}"


def _timers(elements: Iterable[Element]) -> Iterator[str]:
    symbols = [element.symbol for element in elements if element.timer]
    yield "static void click_timers(void) {"
    for symbol in symbols:
        yield f"    if ({symbol}_due && {symbol}_due <= click_now) {{"
        yield f"        {symbol}_due = 0;"
        yield f"        {symbol}_timer();"
        yield "    }"
    yield "}"
    yield "static uint64_t click_next_due(void) {"
    yield "    uint64_t next = CLICK_NEVER;"
    for symbol in symbols:
        yield f"    if ({symbol}_due && {symbol}_due < next) next = {symbol}_due;"
    yield "    return next;"
    yield "}"


def _start(elements: Iterable[Element]) -> Iterator[str]:
    yield "static void click_start(void) {"
    for element in elements:
        if element.init:
            yield f"    {element.symbol}_init();"
    yield "}"


def _handlers(elements: Iterable[Element]) -> Iterator[str]:
    """`name.handler`: first the element, then the handler, so that few names are compared."""
    yield "int32_t edgeos_handler(int write, const char *name, uint32_t name_len, char *data, uint32_t len,"
    yield "                       uint32_t capacity) {"
    yield "    click_text out = {data, 0, capacity};"
    yield "    (void)out, (void)write, (void)name, (void)name_len, (void)len;"
    by_length: dict[int, list[Element]] = defaultdict(list)
    for element in elements:
        if element.handlers:
            by_length[len(element.name)].append(element)
    for length, same in sorted(by_length.items()):
        yield f"    if (name_len > {length + 1} && name[{length}] == '.') {{"
        yield f"        const char *handler = name + {length + 1};"
        yield f"        const uint32_t handler_len = name_len - {length + 1};"
        for element in same:
            yield f"        if (__builtin_memcmp(name, {literal(element.name.encode())}, {length}) == 0) {{"
            yield from _element_handlers(element)
            yield "        }"
        yield "    }"
    yield "    return EDGEOS_NO_HANDLER;"
    yield "}"


def _element_handlers(element: Element) -> Iterator[str]:
    for name, modes in handler_names(type(element)).items():
        yield f'            if (click_text_is(handler, handler_len, "{name}")) {{'
        if "w" in modes:
            yield f"                if (write) return {element.symbol}_write_{name}(data, len) ? 0 : EDGEOS_BAD_VALUE;"
        else:
            yield "                if (write) return EDGEOS_NOT_ALLOWED;"
        if "r" in modes:
            yield f"                {element.symbol}_read_{name}(&out);"
            yield "                return (int32_t)out.len;"
        else:
            yield "                return EDGEOS_NOT_ALLOWED;"
        yield "            }"
