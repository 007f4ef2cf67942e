/* route.h: routes, and the search for the part of the address space that an address lies in. Keeps no state. */
#ifndef CLICK_ROUTE_H
#define CLICK_ROUTE_H

#include <click/bytes.h>
#include <click/text.h>

#define CLICK_NO_ROUTE 65535u

/* Addresses as they lie in packets. */
typedef struct click_route {
    uint32_t address, mask, gateway;
    uint32_t output;
} click_route;

/* The last of `count` starts, in order from 0, that is not above the address. */
static inline uint32_t click_search_interval(const uint32_t *starts, uint32_t count, uint32_t address) {
    const uint32_t *base = starts;
    while (count > 1) {
        const uint32_t half = count / 2;
        base = base[half] <= address ? base + half : base;
        count -= half;
    }
    return (uint32_t)(base - starts);
}

/* Bits of a mask. */
static inline uint32_t click_mask_bits(uint32_t mask) { return (uint32_t)__builtin_popcount(mask); }

static inline void click_text_route(click_text *out, const click_route *route) {
    click_text_ip4(out, route->address);
    click_text_char(out, '/');
    click_text_unsigned(out, click_mask_bits(route->mask));
    click_text_char(out, '\t');
    if (route->gateway) {
        click_text_ip4(out, route->gateway);
    } else {
        click_text_char(out, '-');
    }
    click_text_char(out, '\t');
    click_text_unsigned(out, route->output);
    click_text_char(out, '\n');
}

/* An address with `/` and bits, or a mask as an address; without either the address alone. As they lie in packets. */
static inline bool click_parse_prefix(click_word word, uint32_t *address, uint32_t *mask) {
    uint32_t slash = 0;
    while (slash < word.len && word.text[slash] != '/') slash++;
    const click_word first = {word.text, slash};
    if (!click_parse_ip4(first, address)) return false;
    *mask = 0xffffffffu;
    if (slash == word.len) return true;
    const click_word second = {word.text + slash + 1, word.len - slash - 1};
    uint64_t bits;
    if (!click_parse_ip4(second, mask)) {
        if (!click_parse_unsigned(second.text, second.len, &bits) || bits > 32) return false;
        *mask = bits ? click_swap32(0xffffffffu << (32 - bits)) : 0;
    }
    const uint32_t rest = ~click_swap32(*mask);
    *address &= *mask;
    return (rest & (rest + 1)) == 0;
}

/* `ADDR/MASK [GW] OUT`, or, where there is no output, the prefix alone. */
static inline bool click_parse_route(const char *text, uint32_t len, bool with_output, click_route *route) {
    if (!click_parse_prefix(click_next_word(&text, &len), &route->address, &route->mask)) return false;
    click_word word = click_next_word(&text, &len);
    route->gateway = route->output = 0;
    if (!with_output && word.len == 0) return true;
    click_word last = click_next_word(&text, &len);
    if (last.len) {
        if (!(word.len == 1 && word.text[0] == '-') && !click_parse_ip4(word, &route->gateway)) return false;
        word = last;
    }
    uint64_t output;
    if (click_next_word(&text, &len).len || !click_parse_unsigned(word.text, word.len, &output)) return false;
    if (output > 255) return false;
    route->output = (uint32_t)output;
    return true;
}

#endif /* CLICK_ROUTE_H */
