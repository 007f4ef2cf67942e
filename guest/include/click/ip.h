/* ip.h: the headers of IPv4, TCP, UDP and ICMP in packets: where they are, what they hold, and sums over them.
 *
 * Elements that expect an IP packet take the header at the network annotation, or at the first byte where there is none, and
 * ask for it here, so that nothing behind the packet's end is read whatever the header says. Keeps no state.
 */
#ifndef CLICK_IP_H
#define CLICK_IP_H

#include <click/checksum.h>
#include <click/packet.h>

enum { IP_TOS = 1, IP_LENGTH = 2, IP_ID = 4, IP_FRAGMENT = 6, IP_TTL = 8, IP_PROTOCOL = 9, IP_SUM = 10, IP_SRC = 12, IP_DST = 16 };
enum { IP_HEADER = 20, UDP_HEADER = 8, TCP_HEADER = 20, ICMP_HEADER = 8 };
enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17 };
enum { ICMP_ECHO_REPLY = 0, ICMP_UNREACHABLE = 3, ICMP_REDIRECT = 5, ICMP_ECHO = 8, ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETER = 12 };

#define IP_DONT_FRAGMENT 0x4000u
#define IP_MORE_FRAGMENTS 0x2000u
#define IP_OFFSET 0x1fffu

static inline uint32_t click_ip_header_len(const uint8_t *ip) { return (ip[0] & 15u) * 4; }

/* The IP header of a packet, all of which is there; NULL when it is none. */
static inline uint8_t *click_ip(const click_packet *p) {
    uint8_t *ip = p->network ? p->network : p->data;
    const uint32_t len = click_after(p, ip);
    if (len < IP_HEADER || ip[0] >> 4 != 4) return NULL;
    const uint32_t header = click_ip_header_len(ip);
    return header >= IP_HEADER && header <= len ? ip : NULL;
}

/* Bytes of the datagram that are there: what its length says, or fewer when the packet ends before. */
static inline uint32_t click_ip_len(const click_packet *p, const uint8_t *ip) {
    const uint32_t there = click_after(p, ip), said = click_get16(ip + IP_LENGTH);
    return said < there ? said : there;
}

/* Bytes of the datagram behind its IP header. */
static inline uint32_t click_ip_payload_len(const click_packet *p, const uint8_t *ip) {
    const uint32_t len = click_ip_len(p, ip), header = click_ip_header_len(ip);
    return len < header ? 0 : len - header;
}

static inline uint8_t *click_ip_payload(uint8_t *ip) { return ip + click_ip_header_len(ip); }

static inline bool click_ip_is_fragment(const uint8_t *ip) {
    return (click_raw16(ip + IP_FRAGMENT) & click_swap16(IP_MORE_FRAGMENTS | IP_OFFSET)) != 0;
}

/* Whether the transport header is in this packet: it is whole, or the first of its fragments. */
static inline bool click_ip_is_first(const uint8_t *ip) {
    return (click_raw16(ip + IP_FRAGMENT) & click_swap16(IP_OFFSET)) == 0;
}

static inline void click_set_ip(click_packet *p, uint8_t *ip) {
    p->network = ip;
    p->transport = click_ip_payload(ip);
}

/* The sum of an IP header, not folded. */
static inline uint32_t click_ip_sum(const uint8_t *ip) {
    const uint32_t len = click_ip_header_len(ip);
    if (len != IP_HEADER) return click_sum(ip, len);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < IP_HEADER; i += 4) sum += click_raw32(ip + i);
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (uint32_t)((sum & 0xffff) + (sum >> 16));
}

static inline bool click_ip_sum_is_right(const uint8_t *ip) { return click_sum_fold(click_ip_sum(ip)) == 0; }

static inline void click_ip_set_sum(uint8_t *ip) {
    click_put_raw16(ip + IP_SUM, 0);
    click_put_raw16(ip + IP_SUM, click_sum_fold(click_ip_sum(ip)));
}

/* Changes a 16-bit word of an IP header, as it lies, and the checksum with it. */
static inline void click_ip_put16(uint8_t *ip, uint32_t offset, uint16_t value) {
    const uint16_t sum = click_checksum_update16(click_raw16(ip + IP_SUM), click_raw16(ip + offset), value);
    click_put_raw16(ip + offset, value);
    click_put_raw16(ip + IP_SUM, sum);
}

static inline void click_ip_put32(uint8_t *ip, uint32_t offset, uint32_t value) {
    const uint16_t sum = click_checksum_update32(click_raw16(ip + IP_SUM), click_raw32(ip + offset), value);
    click_put_raw32(ip + offset, value);
    click_put_raw16(ip + IP_SUM, sum);
}

/* The sum of the pseudo-header that TCP and UDP checksums cover, not folded. */
static inline uint32_t click_pseudo_sum(const uint8_t *ip, uint32_t len) {
    uint64_t sum = (uint64_t)click_raw32(ip + IP_SRC) + click_raw32(ip + IP_DST);
    sum += click_swap16(ip[IP_PROTOCOL]) + click_swap16((uint16_t)len);
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (uint32_t)((sum & 0xffff) + (sum >> 16));
}

/* The checksum to store for a TCP or UDP segment of `len` bytes, whose own checksum field counts as it is. */
static inline uint16_t click_transport_sum(const uint8_t *ip, const uint8_t *segment, uint32_t len) {
    return click_sum_fold(click_pseudo_sum(ip, len) + click_sum(segment, len));
}

/* The same for UDP, where zero stands for no checksum (RFC 768). */
static inline uint16_t click_udp_sum(const uint8_t *ip, const uint8_t *udp, uint32_t len) {
    const uint16_t sum = click_transport_sum(ip, udp, len);
    return sum ? sum : 0xffff;
}

/* An address that a single host may have as its own: RFC 1812, 5.3.7. */
static inline bool click_is_host(uint32_t address) {
    const uint32_t first = address & 255;
    return first != 0 && first != 127 && first < 224;
}

#endif /* CLICK_IP_H */
