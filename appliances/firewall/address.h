/* address.h: IPv4 and IPv6 addresses and prefixes from text (RFC 4291, 2.2 and 2.3; RFC 4632, 3.1). */
#ifndef EDGEOS_FIREWALL_ADDRESS_H
#define EDGEOS_FIREWALL_ADDRESS_H

#include "../include/packet.h"

/* A word of the configuration. */
struct text {
    const uint8_t *at;
    uint32_t len;
};

struct prefix {
    struct packet_address address, mask;
    bool ip6;
    bool given; /* its word, src or dst, was there */
};

static inline struct text text_part(struct text t, uint32_t first, uint32_t end) {
    return (struct text){t.at + first, end - first};
}

/* Index of the first `c` at or behind `from`; the length when there is none. */
static inline uint32_t text_find(struct text t, char c, uint32_t from) {
    while (from < t.len && t.at[from] != (uint8_t)c) from++;
    return from;
}

static inline int text_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 16;
}

/* The whole text as a number of 1 to `digits_max` digits. */
static inline bool text_number(struct text t, uint32_t base, uint32_t digits_max, uint32_t value_max, uint32_t *value) {
    *value = 0;
    if (t.len == 0 || t.len > digits_max) return false;
    for (uint32_t i = 0; i < t.len; i++) {
        uint32_t digit = (uint32_t)text_digit(t.at[i]);
        if (digit >= base) return false;
        *value = *value * base + digit;
    }
    return *value <= value_max;
}

/* Four decimal octets. Leading zeros are refused: some programs read them as octal. */
static inline bool address_parse_ip4(struct text t, uint8_t bytes[4]) {
    for (uint32_t octets = 0, at = 0;; octets++) {
        uint32_t end = text_find(t, '.', at), octet;
        if (octets == 4 || !text_number(text_part(t, at, end), 10, 3, 255, &octet)) return false;
        if (end - at > 1 && t.at[at] == '0') return false;
        bytes[octets] = (uint8_t)octet;
        if (end == t.len) return octets == 3;
        at = end + 1;
    }
}

/* Moves what follows the gap that "::" stands for to the end, and fills the gap with zeros. */
static inline void address_open_gap(uint8_t bytes[16], uint32_t gap, uint32_t count) {
    uint32_t tail = count - gap;
    __builtin_memmove(bytes + 16 - tail, bytes + gap, tail);
    __builtin_memset(bytes + gap, 0, 16 - count);
}

static inline bool address_parse_ip6(struct text t, uint8_t bytes[16]) {
    const uint32_t no_gap = 17; /* more than there are bytes */
    uint32_t count = 0, gap = no_gap, at = 0, value;
    if (t.len >= 2 && t.at[0] == ':' && t.at[1] == ':') {
        gap = 0;
        at = 2;
    }
    while (at < t.len) {
        uint32_t end = text_find(t, ':', at);
        struct text group = text_part(t, at, end);
        if (text_find(group, '.', 0) < group.len) { /* the last 32 bits as an IPv4 address */
            if (end != t.len || count > 12 || !address_parse_ip4(group, bytes + count)) return false;
            count += 4;
            break;
        }
        if (count == 16 || !text_number(group, 16, 4, 0xffff, &value)) return false;
        bytes[count++] = (uint8_t)(value >> 8);
        bytes[count++] = (uint8_t)value;
        if (end == t.len) break;
        at = end + 1;
        if (at == t.len) return false;
        if (t.at[at] == ':') {
            if (gap != no_gap) return false;
            gap = count;
            at++;
        }
    }
    if (gap == no_gap) return count == 16;
    if (count > 14) return false;
    address_open_gap(bytes, gap, count);
    return true;
}

/* Ones for the first `bits` bits of `size` bytes. */
static inline void prefix_mask(uint8_t *bytes, uint32_t size, uint32_t bits) {
    for (uint32_t i = 0; i < size; i++) {
        uint32_t here = bits <= 8 * i ? 0 : bits - 8 * i;
        bytes[i] = here >= 8 ? 0xff : (uint8_t)(0xff00 >> here);
    }
}

/* ADDRESS or ADDRESS/LENGTH; bits behind the length are cleared, so 10.0.0.1/8 is the network that 10.0.0.1 is in. */
static inline bool prefix_parse(struct text t, struct prefix *p) {
    uint8_t address[16], mask[16];
    uint32_t slash = text_find(t, '/', 0);
    struct text before = text_part(t, 0, slash);
    if (!address_parse_ip4(before, address)) {
        if (!address_parse_ip6(before, address)) return false;
        p->ip6 = true;
    }
    uint32_t size = p->ip6 ? 16 : 4, bits = size * 8;
    if (slash < t.len && !text_number(text_part(t, slash + 1, t.len), 10, 3, bits, &bits)) return false;
    prefix_mask(mask, size, bits);
    for (uint32_t i = 0; i < size; i++) address[i] &= mask[i];
    p->address = p->ip6 ? packet_address_ip6(address) : packet_address_ip4(address);
    p->mask = p->ip6 ? packet_address_ip6(mask) : packet_address_ip4(mask);
    return true;
}

#endif /* EDGEOS_FIREWALL_ADDRESS_H */
