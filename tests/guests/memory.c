/* Holds what its client tells it to: the first byte of a packet's payload (offset 42) says what to do, two bytes behind it
 * (little endian) how much. s: fill so many KiB with noise; g: grow the memory by so many pages and write into each; w: keep
 * the third byte; r: put into the payload the kept byte, the pages of memory, how many of the grown ones hold what was
 * written, and how many messages have come; t: trap. Each packet goes on. */
#include <edgeos.h>

EDGEOS_COUNTER(seen);

#define ROOM (512 * 1024)

static uint8_t kept;
static uint32_t first_grown;
static volatile uint8_t noise[ROOM];

static uint32_t pages(void) { return (uint32_t)__builtin_wasm_memory_size(0); }
static uint8_t *page(uint32_t number) { return (uint8_t *)(uintptr_t)(number * 65536); }

static void fill(uint32_t bytes) {
    uint32_t state = 1;
    for (uint32_t i = 0; i < bytes && i < ROOM; i++) noise[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
}

static void grow(uint32_t count) {
    if (first_grown == 0) first_grown = pages();
    for (; count > 0 && __builtin_wasm_memory_grow(0, 1) != (size_t)-1; count--) page(pages() - 1)[65535] = 0x5a;
}

static uint8_t whole_pages(void) {
    uint8_t whole = 0;
    for (uint32_t i = first_grown; first_grown != 0 && i < pages(); i++) whole += page(i)[65535] == 0x5a;
    return whole;
}

int edgeos_handle(edgeos_message *m) {
    if (m->len < 48) return 0;
    uint8_t *p = m->data + 42;
    const uint32_t count = p[1] | (uint32_t)p[2] << 8;
    seen.value++;
    if (p[0] == 's') fill(count * 1024);
    if (p[0] == 'g') grow(count);
    if (p[0] == 'w') kept = p[3];
    if (p[0] == 't') __builtin_trap();
    if (p[0] == 'r') p[1] = kept, p[2] = (uint8_t)pages(), p[3] = whole_pages(), p[4] = (uint8_t)seen.value;
    return 0;
}
