/* Works as long as a packet asks for: the first byte of a UDP payload is the number of rounds, in units of about a tenth of a
 * millisecond. Grows its memory by as many pages as the second byte says. Forwards all. Its handlers "work" and "grow" do the same
 * for the number of bytes that are written to them. */
#include <edgeos.h>

#define PAYLOAD 42
#define ROUND 20000u

EDGEOS_COUNTER(handled);
EDGEOS_COUNTER(refused); /* pages that were not to be had */

static volatile uint32_t sink;

static void work(uint32_t rounds) {
    for (uint32_t left = rounds * ROUND; left > 0; left--) sink = sink * 1664525u + left;
}

static void grow(uint32_t pages) {
    if (pages && __builtin_wasm_memory_grow(0, pages) == (unsigned long)-1) refused.value += pages;
}

int edgeos_handle(edgeos_message *m) {
    handled.value++;
    if (m->len < PAYLOAD + 2) return 0;
    work(m->data[PAYLOAD]);
    grow(m->data[PAYLOAD + 1]);
    return 0;
}

int32_t edgeos_handler(int write, const char *name, uint32_t name_len, char *data, uint32_t len, uint32_t capacity) {
    (void)write, (void)name_len, (void)data, (void)capacity;
    if (name[0] == 'w') work(len);
    if (name[0] == 'g') grow(len);
    return 0;
}
