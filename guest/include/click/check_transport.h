/* check_transport.h: whether a packet holds a whole and good UDP, TCP or ICMP header, its checksum included. No state. */
#ifndef CLICK_CHECK_TRANSPORT_H
#define CLICK_CHECK_TRANSPORT_H

#include <click/ip.h>
#include <click/text.h>

enum { TRANSPORT_GOOD, TRANSPORT_OTHER, TRANSPORT_BAD_LENGTH, TRANSPORT_BAD_SUM, TRANSPORT_PROBLEMS };

static inline uint32_t click_check_udp(const click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip || ip[IP_PROTOCOL] != IP_UDP) return TRANSPORT_OTHER;
    const uint8_t *udp = click_ip_payload(ip);
    const uint32_t there = click_ip_payload_len(p, ip);
    const uint32_t len = there >= UDP_HEADER ? click_get16(udp + 4) : 0;
    if (len < UDP_HEADER || len > there) return TRANSPORT_BAD_LENGTH;
    return click_raw16(udp + 6) && click_transport_sum(ip, udp, len) ? TRANSPORT_BAD_SUM : TRANSPORT_GOOD;
}

static inline uint32_t click_check_tcp(const click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip || ip[IP_PROTOCOL] != IP_TCP) return TRANSPORT_OTHER;
    const uint8_t *tcp = click_ip_payload(ip);
    const uint32_t len = click_ip_payload_len(p, ip);
    const uint32_t header = len >= TCP_HEADER ? (tcp[12] >> 4) * 4u : 0;
    if (header < TCP_HEADER || header > len) return TRANSPORT_BAD_LENGTH;
    return click_transport_sum(ip, tcp, len) ? TRANSPORT_BAD_SUM : TRANSPORT_GOOD;
}

static inline uint32_t click_check_icmp(const click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip || ip[IP_PROTOCOL] != IP_ICMP) return TRANSPORT_OTHER;
    const uint8_t *icmp = click_ip_payload(ip);
    const uint32_t len = click_ip_payload_len(p, ip);
    if (len < ICMP_HEADER) return TRANSPORT_BAD_LENGTH;
    if ((icmp[0] == 13 || icmp[0] == 14) && len < 20) return TRANSPORT_BAD_LENGTH; /* timestamps */
    return click_sum_fold(click_sum(icmp, len)) ? TRANSPORT_BAD_SUM : TRANSPORT_GOOD;
}

static inline void click_text_transport_problems(click_text *out, const uint64_t *counts) {
    static const char *const names[TRANSPORT_PROBLEMS] = {0, "different protocol", "bad packet length", "bad checksum"};
    for (uint32_t i = 1; i < TRANSPORT_PROBLEMS; i++) {
        click_text_unsigned(out, counts[i]);
        click_text_char(out, '\t');
        click_text_string(out, names[i]);
        click_text_char(out, '\n');
    }
}

#endif /* CLICK_CHECK_TRANSPORT_H */
