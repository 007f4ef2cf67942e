/* bytes.h: numbers in packets. The machine is little-endian (WebAssembly, x86-64, aarch64); packets are big-endian.
 *
 * get/put convert to the machine's order. raw/put_raw do not: they take a number as it lies, which is cheaper where it is
 * only compared with a constant or copied. Addresses need no alignment. Who calls has checked that the bytes are there.
 */
#ifndef CLICK_BYTES_H
#define CLICK_BYTES_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "raw numbers are written for little-endian machines");

static inline uint16_t click_swap16(uint16_t value) { return __builtin_bswap16(value); }
static inline uint32_t click_swap32(uint32_t value) { return __builtin_bswap32(value); }

static inline uint16_t click_raw16(const uint8_t *at) {
    uint16_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t click_raw32(const uint8_t *at) {
    uint32_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

static inline void click_put_raw16(uint8_t *at, uint16_t value) { __builtin_memcpy(at, &value, sizeof value); }
static inline void click_put_raw32(uint8_t *at, uint32_t value) { __builtin_memcpy(at, &value, sizeof value); }

static inline uint16_t click_get16(const uint8_t *at) { return click_swap16(click_raw16(at)); }
static inline uint32_t click_get32(const uint8_t *at) { return click_swap32(click_raw32(at)); }
static inline void click_put16(uint8_t *at, uint16_t value) { click_put_raw16(at, click_swap16(value)); }
static inline void click_put32(uint8_t *at, uint32_t value) { click_put_raw32(at, click_swap32(value)); }

#endif /* CLICK_BYTES_H */
