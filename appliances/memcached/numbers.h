/* numbers.h: numbers and base64 in text, read with the leniency that memcached's clients know, and written. */
#ifndef MEMCACHED_NUMBERS_H
#define MEMCACHED_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A decimal number as strtoull(3) reads it: leading white space and a sign are allowed; behind it comes white space,
 * NUL or
 * the end. `minus` tells whether it had a minus sign. False: no number, or too large for 64 bits. */
static bool read_decimal(const uint8_t *at, uint32_t len, uint64_t *magnitude, bool *minus) {
    uint32_t i = 0;
    while (i < len && is_space(at[i])) i++;
    *minus = i < len && at[i] == '-';
    if (i < len && (at[i] == '-' || at[i] == '+')) i++;
    uint32_t first = i;
    uint64_t value = 0;
    for (; i < len && at[i] >= '0' && at[i] <= '9'; i++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(at[i] - '0'), &value)) return false;
    }
    *magnitude = value;
    return i > first && (i == len || is_space(at[i]) || at[i] == 0);
}

/* 64 bits without sign. Negative numbers wrap around, but only to what looks positive as a signed number. */
static bool read_u64(const uint8_t *at, uint32_t len, uint64_t *out) {
    bool minus;
    uint64_t value;
    *out = 0;
    if (!read_decimal(at, len, &value, &minus)) return false;
    if (minus) value = 0 - value;
    if (minus && (int64_t)value < 0) return false;
    *out = value;
    return true;
}

/* 32 bits without sign: the low half of 64. */
static bool read_u32(const uint8_t *at, uint32_t len, uint32_t *out) {
    uint64_t value;
    bool good = read_u64(at, len, &value);
    *out = (uint32_t)value;
    return good;
}

/* 32 bits with sign: the low half of 64. */
static bool read_i32(const uint8_t *at, uint32_t len, int32_t *out) {
    bool minus;
    uint64_t value;
    *out = 0;
    if (!read_decimal(at, len, &value, &minus) || value > (uint64_t)INT64_MAX + minus) return false;
    *out = (int32_t)(uint32_t)(minus ? 0 - value : value);
    return true;
}

/* Writes a number without leading zeros; returns the place behind it. */
static uint8_t *write_u64(uint8_t *at, uint64_t value) {
    uint8_t digits[20];
    int count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count) *at++ = digits[--count];
    return at;
}

static uint8_t base64_letter(uint32_t six_bits) {
    return (uint8_t)"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[six_bits & 63];
}

static int base64_value(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : c == '=' ? 0 : -1;
}

static uint8_t *write_base64(uint8_t *to, const uint8_t *from, uint32_t len) {
    for (uint32_t i = 0; i < len; i += 3) {
        uint32_t have = len - i < 3 ? len - i : 3;
        uint32_t bits = (uint32_t)from[i] << 16;
        if (have > 1) bits |= (uint32_t)from[i + 1] << 8;
        if (have > 2) bits |= from[i + 2];
        *to++ = base64_letter(bits >> 18);
        *to++ = base64_letter(bits >> 12);
        *to++ = have > 1 ? base64_letter(bits >> 6) : '=';
        *to++ = have > 2 ? base64_letter(bits) : '=';
    }
    return to;
}

/* Decodes in place, leaving out what is no letter of base64; returns the bytes, 0 = not base64. */
static uint32_t read_base64(uint8_t *at, uint32_t len) {
    uint32_t letters = 0;
    for (uint32_t i = 0; i < len; i++) letters += base64_value(at[i]) >= 0;
    if (!letters || letters % 4) return 0;
    uint32_t out = 0, bits = 0, count = 0, padding = 0;
    for (uint32_t i = 0; i < len; i++) {
        int value = base64_value(at[i]);
        if (value < 0) continue;
        padding += at[i] == '=';
        bits = bits << 6 | (uint32_t)value;
        if (++count % 4) continue;
        at[out++] = (uint8_t)(bits >> 16);
        at[out++] = (uint8_t)(bits >> 8);
        at[out++] = (uint8_t)bits;
        if (padding) return padding > 2 ? 0 : out - padding;
    }
    return out;
}

#endif
