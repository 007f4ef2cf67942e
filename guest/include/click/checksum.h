/* checksum.h: the Internet checksum (RFC 1071), and its change with a part of what it covers (RFC 1624).
 *
 * Sums are taken over words as they lie in the packet, so results are stored as they are. Keeps no state.
 */
#ifndef CLICK_CHECKSUM_H
#define CLICK_CHECKSUM_H

#include <click/bytes.h>

/* The sum of `len` bytes, not folded yet: sums of several parts of even length may be added. */
static inline uint32_t click_sum(const uint8_t *data, uint32_t len) {
    uint64_t sum = 0;
    for (; len >= 4; data += 4, len -= 4) sum += click_raw32(data);
    if (len >= 2) {
        sum += click_raw16(data);
        data += 2;
        len -= 2;
    }
    if (len) sum += data[0];
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (uint32_t)((sum & 0xffff) + (sum >> 16));
}

/* The checksum to store for a sum. */
static inline uint16_t click_sum_fold(uint32_t sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The checksum after a word that it covers has changed; all as they lie. */
static inline uint16_t click_checksum_update16(uint16_t checksum, uint16_t before, uint16_t after) {
    return click_sum_fold((uint32_t)(uint16_t)~checksum + (uint16_t)~before + after);
}

static inline uint16_t click_checksum_update32(uint16_t checksum, uint32_t before, uint32_t after) {
    checksum = click_checksum_update16(checksum, (uint16_t)before, (uint16_t)after);
    return click_checksum_update16(checksum, (uint16_t)(before >> 16), (uint16_t)(after >> 16));
}

#endif /* CLICK_CHECKSUM_H */
