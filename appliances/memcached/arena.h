/* arena.h: memory for all that has no fixed size, handed out in blocks and taken back.
 *
 * Free blocks hang in lists by size, so that taking and giving are a few steps whatever the number of blocks;
 * neighbours that are free become one block. The arena starts in a few bytes among the guest's own variables, where small
 * caches find all they need, and goes on behind the slots: what lies between is one block that is never given back. It
 * grows by pages of 64 KiB at its end, up to its limit, and writes only where blocks are: what was never used is never
 * touched. Pointers are 32 bits: this is for WebAssembly only.
 */
#ifndef MEMCACHED_ARENA_H
#define MEMCACHED_ARENA_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ARENA_PAGE 65536u
#define ARENA_FIRST 1920u /* bytes among the guest's variables: ten small items and their connection */
#define ARENA_SMALL 256u /* below, each multiple of 8 has a list of its own; above, four share each doubling */
#define ARENA_BINS (ARENA_SMALL / 8 + 24 * 4)

/* In front of every block. A free one has its place in its list behind it. */
struct block {
    uint32_t size;   /* bytes with this header, a multiple of 8; lowest bit: free */
    uint32_t before; /* size of the block in front of this one in memory; 0 = the first */
    struct block *next, *previous; /* while free */
};
#define BLOCK_HEADER 8u
#define BLOCK_MIN 16u

static _Alignas(8) uint8_t arena_first[ARENA_FIRST];

static struct {
    uint8_t *end;
    uint32_t gap;       /* bytes between its two parts, which are not its own */
    uint32_t rest;      /* bytes behind `end` that are there but not in use yet */
    struct block *last; /* in memory */
    uint32_t limit;     /* bytes that it may have in all; 0 = as many as there are pages */
    uint32_t refused;   /* pages that could not be had at once; 0 = none were refused yet */
    uint32_t used;      /* bytes in blocks that are taken */
    uint32_t occupied[(ARENA_BINS + 31) / 32];
    struct block *bins[ARENA_BINS];
} arena;

static uint32_t block_size(const struct block *b) { return b->size & ~7u; }
static bool block_free(const struct block *b) { return b->size & 1; }
static struct block *block_after(struct block *b) { return (struct block *)((uint8_t *)b + block_size(b)); }

static uint32_t arena_bin(uint32_t size) {
    if (size < ARENA_SMALL) return size / 8;
    uint32_t top = 31 - (uint32_t)__builtin_clz(size);
    return ARENA_SMALL / 8 + (top - 8) * 4 + ((size >> (top - 2)) & 3);
}

static void arena_list(struct block *b) {
    uint32_t bin = arena_bin(block_size(b));
    b->size |= 1;
    b->previous = 0;
    b->next = arena.bins[bin];
    if (b->next) b->next->previous = b;
    arena.bins[bin] = b;
    arena.occupied[bin / 32] |= 1u << bin % 32;
}

static void arena_unlist(struct block *b) {
    uint32_t bin = arena_bin(block_size(b));
    b->size &= ~1u;
    if (b->next) b->next->previous = b->previous;
    if (b->previous) {
        b->previous->next = b->next;
    } else {
        arena.bins[bin] = b->next;
        if (!b->next) arena.occupied[bin / 32] &= ~(1u << bin % 32);
    }
}

/* Tells the block behind `b` of its size. */
static void arena_settle(struct block *b) {
    if ((uint8_t *)block_after(b) < arena.end) {
        block_after(b)->before = block_size(b);
    } else {
        arena.last = b;
    }
}

/* Lists a block as free, together with free ones beside it. */
static void arena_release(struct block *b) {
    struct block *after = block_after(b);
    if ((uint8_t *)after < arena.end && block_free(after)) {
        arena_unlist(after);
        b->size += block_size(after);
    }
    if (b->before) {
        struct block *before = (struct block *)((uint8_t *)b - b->before);
        if (block_free(before)) {
            arena_unlist(before);
            before->size += block_size(b);
            b = before;
        }
    }
    arena_settle(b);
    arena_list(b);
}

/* Begins with its bytes among the guest's variables; what there is from `start` on is left untouched for later. */
static void arena_open(uint32_t start, uint32_t limit) {
    arena.limit = limit;
    struct block *first = (struct block *)arena_first;
    struct block *gap = (struct block *)(arena_first + ARENA_FIRST - BLOCK_HEADER);
    uint8_t *end = (uint8_t *)(uintptr_t)(__builtin_wasm_memory_size(0) * ARENA_PAGE);
    uint8_t *rest = (uint8_t *)(uintptr_t)((start + 7) / 8 * 8);
    if (end - rest < (ptrdiff_t)BLOCK_MIN) rest = end;
    arena.end = rest;
    arena.rest = (uint32_t)(end - rest);
    arena.gap = (uint32_t)(rest - (uint8_t *)gap);
    *first = (struct block){.size = ARENA_FIRST - BLOCK_HEADER};
    gap->size = arena.gap;
    gap->before = block_size(first);
    arena.last = gap;
    arena_release(first);
}

static uint32_t arena_total(void) { return (uint32_t)(arena.end - arena_first) - arena.gap + arena.rest; }

/* Lists `len` bytes at the end as free. */
static void arena_extend(uint32_t len) {
    struct block *b = (struct block *)arena.end;
    b->size = len;
    b->before = block_size(arena.last);
    arena.end += len;
    arena_release(b);
}

/* Takes what is there behind the end, or adds pages, for a block of `size` bytes. */
static bool arena_grow(uint32_t size) {
    if (arena.rest) {
        uint32_t rest = arena.rest;
        arena.rest = 0;
        arena_extend(rest);
        if (rest >= size) return true;
    }
    uint32_t pages = (size + ARENA_PAGE - 1) / ARENA_PAGE;
    if (arena.refused && pages >= arena.refused) return false;
    bool allowed = !arena.limit || (uint64_t)arena_total() + (uint64_t)pages * ARENA_PAGE <= arena.limit;
    size_t page = allowed ? __builtin_wasm_memory_grow(0, pages) : (size_t)-1;
    if (page == (size_t)-1 || page * ARENA_PAGE != (uintptr_t)arena.end) {
        arena.refused = pages;
        return false;
    }
    arena_extend(pages * ARENA_PAGE);
    return true;
}

/* A free block of at least `size` bytes, or 0: the first of the size's own list if it fits, else of the next larger
   one. */
static struct block *arena_find(uint32_t size) {
    uint32_t bin = arena_bin(size);
    struct block *own = arena.bins[bin];
    if (own && block_size(own) >= size) return own;
    bin++;
    for (uint32_t word = bin / 32; word < sizeof arena.occupied / sizeof *arena.occupied; word++) {
        uint32_t bits = arena.occupied[word];
        if (word == bin / 32) bits &= ~0u << bin % 32;
        if (bits) return arena.bins[word * 32 + (uint32_t)__builtin_ctz(bits)];
    }
    return 0;
}

/* `len` bytes aligned to 8, or 0 when there is no room. */
static void *arena_take(uint32_t len) {
    if (len > 0x40000000) return 0;
    uint32_t size = (len + BLOCK_HEADER + 7) & ~7u;
    if (size < BLOCK_MIN) size = BLOCK_MIN;
    struct block *b = arena_find(size);
    if (!b && (!arena_grow(size) || !(b = arena_find(size)))) return 0;
    arena_unlist(b);
    uint32_t rest = block_size(b) - size;
    if (rest >= BLOCK_MIN) {
        b->size = size;
        struct block *tail = block_after(b);
        tail->size = rest;
        tail->before = size;
        arena_settle(tail);
        arena_list(tail);
    }
    arena.used += block_size(b);
    return (uint8_t *)b + BLOCK_HEADER;
}

/* Gives back what arena_take gave; 0 is allowed. */
static void arena_give(void *at) {
    if (!at) return;
    struct block *b = (struct block *)((uint8_t *)at - BLOCK_HEADER);
    arena.used -= block_size(b);
    arena_release(b);
}

/* Whether a block of this length could ever be had. */
static bool arena_could_hold(uint32_t len) { return len < arena_total() || !arena.refused; }

#endif
