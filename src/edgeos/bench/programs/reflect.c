/* reflect: a guest that answers each packet with the same one, the two Ethernet addresses exchanged, and with how many
 * packets this FWP has seen in bytes 42 to 45 (the first of UDP's payload, little endian): that is the client's own count
 * as long as the client has had this FWP to itself. */
#include <edgeos.h>

static uint32_t seen;

int edgeos_handle(edgeos_message *m) {
    if (m->len < 46) return EDGEOS_DROP;
    uint8_t destination[6];
    __builtin_memcpy(destination, m->data, 6);
    __builtin_memmove(m->data, m->data + 6, 6);
    __builtin_memcpy(m->data + 6, destination, 6);
    seen++;
    __builtin_memcpy(m->data + 42, &seen, sizeof seen);
    return EDGEOS_BACK;
}
