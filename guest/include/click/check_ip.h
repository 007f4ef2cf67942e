/* check_ip.h: whether a packet holds a good IP header (RFC 1812, 5.2.2), and its annotations if so. Keeps no state. */
#ifndef CLICK_CHECK_IP_H
#define CLICK_CHECK_IP_H

#include <click/ip.h>
#include <click/text.h>

enum { IP_GOOD, IP_TINY, IP_BAD_VERSION, IP_BAD_HEADER, IP_BAD_LENGTH, IP_BAD_SUM, IP_BAD_SOURCE, IP_PROBLEMS };

static inline uint32_t click_check_ip(click_packet *p, uint32_t offset, bool with_sum,
                                      bool (*bad_source)(uint32_t source, uint32_t destination)) {
    if (p->len < offset + IP_HEADER) return IP_TINY;
    uint8_t *ip = p->data + offset;
    if (ip[0] >> 4 != 4) return IP_BAD_VERSION;
    const uint32_t header = click_ip_header_len(ip), there = p->len - offset, len = click_get16(ip + IP_LENGTH);
    if (header < IP_HEADER) return IP_BAD_HEADER;
    if (len > there || len < header) return IP_BAD_LENGTH;
    if (with_sum && !click_ip_sum_is_right(ip)) return IP_BAD_SUM;
    const uint32_t destination = click_raw32(ip + IP_DST);
    if (bad_source(click_raw32(ip + IP_SRC), destination)) return IP_BAD_SOURCE;
    click_take(p, there - len);
    p->network = ip;
    p->transport = ip + header;
    p->dst_ip = destination;
    return IP_GOOD;
}

static inline void click_text_ip_problems(click_text *out, const uint64_t *counts) {
    static const char *const names[IP_PROBLEMS] = {0, "tiny packet", "bad IP version", "bad IP header length",
                                                   "bad IP length", "bad IP checksum", "bad source address"};
    for (uint32_t i = 1; i < IP_PROBLEMS; i++) {
        click_text_unsigned(out, counts[i]);
        click_text_char(out, '\t');
        click_text_string(out, names[i]);
        click_text_char(out, '\n');
    }
}

#endif /* CLICK_CHECK_IP_H */
