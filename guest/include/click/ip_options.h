/* ip_options.h: IP options that routers act on (RFC 791; RFC 1812, 5.2.4 and 5.3.13). Keeps no state. */
#ifndef CLICK_IP_OPTIONS_H
#define CLICK_IP_OPTIONS_H

#include <click/ip.h>

enum { IP_OPTION_END = 0, IP_OPTION_NONE = 1, IP_OPTION_RECORD = 7, IP_OPTION_TIME = 68 };
enum { IP_OPTION_LOOSE_ROUTE = 131, IP_OPTION_STRICT_ROUTE = 137 };
enum { IP_TIMES_ONLY = 0, IP_TIMES_AND_ADDRESSES = 1, IP_TIMES_ASKED = 3 };

/* The length of the option at `at`, 0 when it does not fit its header. */
static inline uint32_t click_ip_option_len(const uint8_t *ip, uint32_t at, uint32_t header_len) {
    if (ip[at] == IP_OPTION_NONE || ip[at] == IP_OPTION_END) return 1;
    if (at + 2 > header_len) return 0;
    const uint32_t len = ip[at + 1];
    return len >= 2 && at + len <= header_len ? len : 0;
}

static inline uint32_t click_option_milliseconds(void) {
    return click_swap32((uint32_t)(click_now / 1000000 % 86400000));
}

/* Record route. Returns the offset in the option of what is wrong, or 0. */
static inline uint32_t click_option_record(uint8_t *option, uint32_t len, uint32_t mine) {
    if (len < 3) return 1;
    const uint32_t at = option[2] - 1u;
    if (option[2] < 4 || (at + 4 > len && at != len)) return 2;
    if (at == len) return 0; /* full */
    click_put_raw32(option + at, mine);
    option[2] += 4;
    return 0;
}

/* Timestamp. Returns the offset in the option of what is wrong, or 0. */
static inline uint32_t click_option_time(uint8_t *option, uint32_t len, uint32_t mine, bool (*is_mine)(uint32_t)) {
    if (len < 4) return 1;
    const uint32_t at = option[2] - 1u, flag = option[3] & 15u, missed = option[3] >> 4;
    if (option[2] < 5) return 2;
    if (flag != IP_TIMES_ONLY && flag != IP_TIMES_AND_ADDRESSES && flag != IP_TIMES_ASKED) return 3;
    const uint32_t size = flag == IP_TIMES_ONLY ? 4 : 8;
    if (at + size > len) {
        if (flag == IP_TIMES_ASKED) return 0;
        if (missed == 15) return 3;
        option[3] = (uint8_t)((missed + 1) << 4 | flag);
        return 0;
    }
    if (flag == IP_TIMES_ASKED && !is_mine(click_raw32(option + at))) return 0;
    if (flag == IP_TIMES_AND_ADDRESSES) click_put_raw32(option + at, mine);
    click_put_raw32(option + at + size - 4, click_option_milliseconds());
    option[2] += (uint8_t)size;
    return 0;
}

/* Acts on the options of a header as the router `mine`. Returns the offset of the byte that is wrong, or 0. */
__attribute__((always_inline)) static inline uint32_t click_ip_options(uint8_t *ip, uint32_t mine, bool (*is_mine)(uint32_t)) {
    const uint32_t header_len = click_ip_header_len(ip);
    bool changed = false;
    uint32_t wrong = 0;
    for (uint32_t at = IP_HEADER, len; at < header_len && ip[at] != IP_OPTION_END && !wrong; at += len) {
        const uint8_t type = ip[at];
        len = click_ip_option_len(ip, at, header_len);
        if (len == 0) {
            wrong = at + 1;
            break;
        }
        uint32_t inside = 0;
        if (type == IP_OPTION_RECORD) inside = click_option_record(ip + at, len, mine);
        if (type == IP_OPTION_TIME) inside = click_option_time(ip + at, len, mine, is_mine);
        if (inside) wrong = at + inside;
        changed |= type == IP_OPTION_RECORD || type == IP_OPTION_TIME;
    }
    if (changed) click_ip_set_sum(ip);
    return wrong;
}

#endif /* CLICK_IP_OPTIONS_H */
