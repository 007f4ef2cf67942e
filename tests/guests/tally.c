/* Writes into the last 12 bytes of each message who handled it: the how manyth message of this FWP it is (u32), the number
 * of its flow (u32), the in port, the direction, and two bytes of zero. Little endian. */
#include <edgeos.h>

EDGEOS_COUNTER(seen);

int edgeos_handle(edgeos_message *m) {
    seen.value++;
    if (m->len < 26) return 0;
    uint8_t *stamp = m->data + m->len - 12;
    const uint32_t words[3] = {(uint32_t)seen.value, (uint32_t)m->flow, m->port | (uint32_t)m->direction << 8};
    __builtin_memcpy(stamp, words, sizeof words);
    return 0;
}
