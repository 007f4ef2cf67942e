/* The packets of remote_load: TCP over IPv4 in Ethernet frames, as a TAP device takes them and hands them out. */
#ifndef REMOTE_PACKETS_H
#define REMOTE_PACKETS_H

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SEGMENT_MAX = 1460, /* bytes of payload and options */
    FRAME_MAX = 1600,
    TIMESTAMP_WORD = 0x0101080a, /* no-operation twice, then a timestamp option of ten bytes */
    TIMESTAMP_BYTES = 12
};

/* Without gaps: the length of what precedes the IP header is a multiple of four. */
struct packet {
    struct virtio_net_hdr offload;
    struct ether_header ethernet;
    struct iphdr ip;
    struct tcphdr tcp;
    uint8_t rest[FRAME_MAX]; /* options, payload */
};
_Static_assert(offsetof(struct packet, rest) == 64, "the headers have gaps");

/* The service's device, and the router behind which the clients are; `edgeos.bench.listen_links` has the same. */
#define SERVICE_MAC {0x02, 0, 0, 0, 0, 1}
#define ROUTER_MAC {0x02, 0, 0, 0, 0, 2}

/* Checksums are made here. The device says that they are right, as a network card does that has verified them. */
static const struct packet blank = {
    .offload = {.flags = VIRTIO_NET_HDR_F_DATA_VALID},
    .ethernet = {.ether_dhost = SERVICE_MAC, .ether_shost = ROUTER_MAC, .ether_type = 0x0008},
    .ip = {.version = 4, .ihl = sizeof(struct iphdr) / 4, .frag_off = 0x0040, .ttl = 64, .protocol = IPPROTO_TCP},
};
_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "ETHERTYPE_IP and IP_DF above");

/* The sum of 16-bit words, not folded yet (RFC 1071). */
static inline uint64_t sum_of(const void *data, size_t length) {
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (; length >= 8; p += 8, length -= 8) {
        uint64_t words;
        memcpy(&words, p, 8);
        sum += (words & UINT32_MAX) + (words >> 32);
    }
    uint64_t words = 0; /* bytes that lack count as 0 */
    memcpy(&words, p, length);
    return sum + (words & UINT32_MAX) + (words >> 32);
}

static inline uint16_t fold(uint64_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t ip_sum(const struct iphdr *ip) { return fold(sum_of(ip, 4u * ip->ihl)); }

/* Of a segment of so many bytes, its header and the addresses. */
static inline uint16_t tcp_sum(const struct iphdr *ip, const struct tcphdr *tcp, size_t length) {
    const uint64_t addresses = (uint64_t)ip->saddr + ip->daddr;
    return fold(addresses + htons(IPPROTO_TCP) + htons((uint16_t)length) + sum_of(tcp, length));
}

/* Fills in the lengths and checksums of a packet with so many bytes of options and payload. Returns its length. */
static inline size_t finish_packet(struct packet *p, size_t options, size_t payload) {
    const size_t segment = sizeof p->tcp + options + payload;
    p->ip.tot_len = htons((uint16_t)(sizeof p->ip + segment));
    p->ip.check = 0;
    p->ip.check = (uint16_t)~ip_sum(&p->ip);
    p->tcp.doff = ((sizeof p->tcp + options) / 4) & 15;
    p->tcp.check = 0;
    p->tcp.check = (uint16_t)~tcp_sum(&p->ip, &p->tcp, segment);
    return offsetof(struct packet, rest) + options + payload;
}

static inline bool is_for_router(const struct packet *p) {
    return memcmp(p->ethernet.ether_dhost, blank.ethernet.ether_shost, ETH_ALEN) == 0 &&
           p->ethernet.ether_type == blank.ethernet.ether_type && p->ip.version == 4 && p->ip.protocol == IPPROTO_TCP;
}

/* Why a frame of so many bytes is no packet that a client takes, or NULL. `*payload` is where its payload begins, and
 * `*length` how many bytes that has. A checksum that was left to the network card is one that it would have made. */
static inline const char *check_packet(const struct packet *p, size_t size, const uint8_t **payload, uint32_t *length) {
    const size_t total = ntohs(p->ip.tot_len);
    if (p->ip.ihl != sizeof p->ip / 4) return "the service sends IP options";
    if (p->ip.frag_off & htons(IP_MF | IP_OFFMASK)) return "the service sends fragments";
    if (total < sizeof p->ip + 4u * p->tcp.doff || p->tcp.doff < 5 || total > size - offsetof(struct packet, ip))
        return "the service sends a packet whose lengths are wrong";
    if (ip_sum(&p->ip) != 0xffff) return "the service sends a wrong checksum of IP";
    const bool unfinished = p->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    if (!unfinished && tcp_sum(&p->ip, &p->tcp, total - sizeof p->ip) != 0xffff)
        return "the service sends a wrong checksum of TCP";
    *payload = (const uint8_t *)&p->tcp + 4u * p->tcp.doff;
    *length = (uint32_t)(total - sizeof p->ip - 4u * p->tcp.doff);
    return NULL;
}

/* What a segment's options say. */
struct options {
    bool has_timestamp;
    uint32_t timestamp;
    uint8_t scale; /* of the window; 0 where it is not said */
};

/* False when they are cut. */
static inline bool read_options(struct options *found, const uint8_t *option, const uint8_t *end) {
    while (option < end && *option != TCPOPT_EOL) {
        if (*option == TCPOPT_NOP) {
            option++;
            continue;
        }
        if (end - option < 2 || option[1] < 2 || option[1] > end - option) return false;
        if (option[0] == TCPOPT_TIMESTAMP && option[1] == TCPOLEN_TIMESTAMP) {
            uint32_t theirs;
            memcpy(&theirs, option + 2, sizeof theirs);
            found->has_timestamp = true;
            found->timestamp = ntohl(theirs);
        }
        if (option[0] == TCPOPT_WINDOW && option[1] == TCPOLEN_WINDOW && option[2] <= 14) found->scale = option[2];
        option += option[1];
    }
    return true;
}

#endif
