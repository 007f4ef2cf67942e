/* Works as long as a packet asks for: the first byte of a UDP payload is the number of rounds, in units of about a tenth of a
 * millisecond. Grows its memory by as many pages as the second byte says. Forwards all. */
#include <edgeos.h>

#define PAYLOAD 42
#define ROUND 20000u

EDGEOS_COUNTER(handled);
EDGEOS_COUNTER(refused); /* pages that were not to be had */

static volatile uint32_t sink;

int edgeos_handle(edgeos_message *m) {
    handled.value++;
    if (m->len < PAYLOAD + 2) return 0;
    for (uint32_t left = m->data[PAYLOAD] * ROUND; left > 0; left--) sink = sink * 1664525u + left;
    const uint32_t pages = m->data[PAYLOAD + 1];
    if (pages && __builtin_wasm_memory_grow(0, pages) == (unsigned long)-1) refused.value += pages;
    return 0;
}
