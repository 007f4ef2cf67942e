"""Guests that cannot ask for more memory once their init is over have all that they may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeos.checkpoint import Checkpoint, make_checkpoint
from edgeos.code_cache import CodeCache
from edgeos.guest_build import build

GUEST = """
#include <edgeos.h>
#include <stdlib.h>
static void *kept;
static void *take(void) { return malloc(100000); }
static void *(*volatile taker)(void);
%s
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CodeCache:
    return CodeCache(tmp_path_factory.mktemp("cache"))


def checkpoint(folder: Path, code: str, cache: CodeCache) -> Checkpoint:
    source = folder / "guest.c"
    source.write_text(GUEST % code)
    return make_checkpoint(build(source, cache=cache), b"", memory_limit=1 << 20)


def test_what_init_took_is_all(tmp_path: Path, cache: CodeCache) -> None:
    code = """
    void edgeos_init(const uint8_t *config, uint32_t len) { (void)config, (void)len, (void)taker, kept = take(); }
    int edgeos_handle(edgeos_message *m) { return m->len > 9 && kept ? 0 : EDGEOS_DROP; }
    """
    made = checkpoint(tmp_path, code, cache)
    assert made.memory_max == made.initial_memory < 1 << 20


def test_a_handler_that_may_allocate_keeps_the_limit(tmp_path: Path, cache: CodeCache) -> None:
    code = "int edgeos_handle(edgeos_message *m) { (void)m, (void)taker; return (kept = take()) ? 0 : EDGEOS_DROP; }"
    assert checkpoint(tmp_path, code, cache).memory_max == 1 << 20


def test_calls_through_pointers_count(tmp_path: Path, cache: CodeCache) -> None:
    code = """
    void edgeos_init(const uint8_t *config, uint32_t len) { (void)config, (void)len, taker = take; }
    int edgeos_handle(edgeos_message *m) { (void)m; return (kept = taker()) ? 0 : EDGEOS_DROP; }
    """
    assert checkpoint(tmp_path, code, cache).memory_max == 1 << 20
