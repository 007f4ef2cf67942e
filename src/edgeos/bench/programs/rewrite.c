/* rewrite: a guest that reads and rewrites the Ethernet header, REWRITES times: exchanges the two addresses and flips the
 * lowest bit of the type. With 1 it is one stage of the measured chain; with n the same work as n stages in one FWP. */
#include <edgeos.h>

#ifndef REWRITES
#define REWRITES 1
#endif

int edgeos_handle(edgeos_message *m) {
    if (m->len < 14) return EDGEOS_DROP;
    uint8_t *frame = m->data;
    for (int i = 0; i < REWRITES; i++) {
        if (i > 0) __asm__ volatile("" ::: "memory"); /* or two rewrites would be none */
        uint8_t destination[6];
        __builtin_memcpy(destination, frame, 6);
        __builtin_memmove(frame, frame + 6, 6);
        __builtin_memcpy(frame + 6, destination, 6);
        frame[13] ^= 1;
    }
    return 0;
}
