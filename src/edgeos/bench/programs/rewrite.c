/* rewrite: a guest that reads and rewrites the Ethernet header, REWRITES times: exchanges the two addresses and flips the
 * lowest bit of the type. With 1 it is one stage of the measured chain; with n the same work as n stages in one FWP. */
#include <edgeos.h>

#ifndef REWRITES
#define REWRITES 1
#endif

int edgeos_handle(edgeos_message *m) {
    if (m->len < 14) return EDGEOS_DROP;
    for (int i = 0; i < REWRITES; i++) {
        uint8_t destination[6];
        __builtin_memcpy(destination, m->data, 6);
        __builtin_memmove(m->data, m->data + 6, 6);
        __builtin_memcpy(m->data + 6, destination, 6);
        m->data[13] ^= 1;
        __asm__ volatile("" ::: "memory"); /* or two rewrites would be none */
    }
    return 0;
}
