/* tcp_segment.h: TCP segments as frames, written and read apart from the guest's own code, by RFC 791, 8200 and 9293. */
#ifndef TEST_TCP_SEGMENT_H
#define TEST_TCP_SEGMENT_H

#include "tcp_host.h"

#define SEGMENT_DATA_MAX 1900u
#define SERVER_PORT 7777u

enum { FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, FLAG_PSH = 8, FLAG_ACK = 16, FLAG_URG = 32 };

/* Between a client and the service. */
typedef struct path {
    uint8_t family; /* 4 or 6 */
    uint8_t tagged; /* a VLAN tag */
    uint16_t port;  /* of the client */
} path;

typedef struct segment {
    uint32_t seq, ack, len;
    uint16_t window, mss; /* mss 0: no such option */
    int8_t scale;         /* below 0: no such option */
    uint8_t flags;
    uint8_t options; /* bytes of further options, with which the guest has nothing to do */
    uint8_t raw_len; /* bytes of `raw`, at most 40: options as they are, instead of all others */
    const uint8_t *raw;
    uint8_t padding; /* bytes behind the datagram, as Ethernet's shortest frame has them */
    const uint8_t *data;
} segment;

static const uint8_t segment_macs[2][6] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}; /* client, server */

static inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static inline uint32_t most(uint32_t a, uint32_t b) { return a > b ? a : b; }

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static uint32_t get32(const uint8_t *at) { return get16(at) << 16 | get16(at + 2); }

/* Of the one's complement sum of RFC 1071, still to be folded. */
static uint32_t sum_of(const uint8_t *at, uint32_t len) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i + 1 < len; i += 2) sum += get16(at + i);
    return len & 1 ? sum + ((uint32_t)at[len - 1] << 8) : sum;
}

static uint32_t fold(uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Of a segment with its pseudo header; 0xffff if it carries a right checksum. */
static uint32_t segment_sum(const uint8_t *ip, uint8_t family, const uint8_t *tcp, uint32_t len) {
    const uint32_t addresses = family == 4 ? sum_of(ip + 12, 8) : sum_of(ip + 8, 32);
    return fold(addresses + 6 + len + sum_of(tcp, len));
}

static void put_address(uint8_t *at, const path *p, bool server) {
    memset(at, 0, 16);
    if (p->family == 4) {
        put32(at, server ? 0x0a4f0001 : 0x0a4f0002);
    } else {
        put32(at, 0xfd000079);
        at[15] = server ? 1 : 2;
    }
}

static uint8_t *put_ip(uint8_t *ip, const path *p, uint32_t payload) {
    uint8_t client[16], server[16];
    put_address(client, p, false);
    put_address(server, p, true);
    if (p->family == 4) {
        memset(ip, 0, 20);
        ip[0] = 0x45;
        put16(ip + 2, 20 + payload);
        put16(ip + 6, 0x4000); /* don't fragment */
        ip[8] = 64, ip[9] = 6;
        memcpy(ip + 12, client, 4);
        memcpy(ip + 16, server, 4);
        put16(ip + 10, ~fold(sum_of(ip, 20)) & 0xffff);
        return ip + 20;
    }
    put32(ip, 0x60000000);
    put16(ip + 4, payload);
    ip[6] = 6, ip[7] = 64;
    memcpy(ip + 8, client, 16);
    memcpy(ip + 24, server, 16);
    return ip + 40;
}

static uint32_t put_options(uint8_t *at, const segment *s) {
    uint32_t n = s->raw_len;
    if (n) {
        memcpy(at, s->raw, n);
        while (n % 4) at[n++] = 0;
        return n;
    }
    if (s->mss) {
        at[0] = 2, at[1] = 4;
        put16(at + 2, s->mss);
        n = 4;
    }
    if (s->scale >= 0) {
        at[n] = 1, at[n + 1] = 3, at[n + 2] = 3, at[n + 3] = (uint8_t)s->scale;
        n += 4;
    }
    for (uint32_t i = 0; i + 2 <= s->options && n + 2 <= 40; i += 2) { /* SACK permitted */
        at[n++] = 4;
        at[n++] = 2;
    }
    while (n % 4) at[n++] = 1;
    return n;
}

/* A segment from the client; returns the frame's length. */
static uint32_t segment_write(uint8_t *frame, const path *p, const segment *s) {
    uint8_t *at = frame + 12;
    memcpy(frame, segment_macs[1], 6);
    memcpy(frame + 6, segment_macs[0], 6);
    if (p->tagged) {
        put32(at, 0x81000007);
        at += 4;
    }
    put16(at, p->family == 4 ? 0x0800 : 0x86dd);
    uint8_t *ip = at + 2, options[40];
    const uint32_t options_len = put_options(options, s), len = 20 + options_len + s->len;
    uint8_t *tcp = put_ip(ip, p, len);
    put16(tcp, p->port);
    put16(tcp + 2, SERVER_PORT);
    put32(tcp + 4, s->seq);
    put32(tcp + 8, s->ack);
    tcp[12] = (uint8_t)((20 + options_len) << 2);
    tcp[13] = s->flags;
    put16(tcp + 14, s->window);
    put32(tcp + 16, 0);
    memcpy(tcp + 20, options, options_len);
    if (s->len) memcpy(tcp + 20 + options_len, s->data, s->len);
    put16(tcp + 16, ~segment_sum(ip, p->family, tcp, len) & 0xffff);
    memset(tcp + len, 0xa5, s->padding);
    return (uint32_t)(tcp + len - frame) + s->padding;
}

/* False for a frame that was sound before the link has changed some of its last 20 bytes. */
static inline bool segment_is_sound(const uint8_t *frame, uint32_t len) {
    const uint8_t *ip = frame + (get16(frame + 12) == 0x8100 ? 18 : 14);
    const uint8_t family = ip[0] >> 4, *tcp = ip + (family == 4 ? 20 : 40);
    return segment_sum(ip, family, tcp, (uint32_t)(frame + len - tcp)) == 0xffff;
}

static void read_options(const uint8_t *at, uint32_t len, segment *s) {
    s->mss = 0;
    s->scale = -1;
    for (uint32_t n = 0; n < len && at[n] != 0;) {
        if (at[n] == 1) {
            n++;
            continue;
        }
        HOST_CHECK(n + 1 < len && at[n + 1] >= 2 && n + at[n + 1] <= len);
        HOST_CHECK(at[n] == 2 || at[n] == 3); /* what it says that it offers */
        if (at[n] == 2) s->mss = (uint16_t)get16(at + n + 2);
        if (at[n] == 3) s->scale = (int8_t)at[n + 2];
        n += at[n + 1];
    }
}

static const uint8_t *read_ip(const uint8_t *ip, const uint8_t *end, path *p) {
    uint8_t client[16], server[16];
    put_address(client, p, false);
    put_address(server, p, true);
    if (p->family == 4) {
        HOST_CHECK(end - ip >= 40 && ip[0] == 0x45 && ip[9] == 6 && ip[8] > 1);
        HOST_CHECK(get16(ip + 2) == (uint32_t)(end - ip));
        HOST_CHECK((get16(ip + 6) & 0xbfff) == 0); /* no fragment */
        HOST_CHECK(fold(sum_of(ip, 20)) == 0xffff);
        HOST_CHECK(!memcmp(ip + 12, server, 4) && !memcmp(ip + 16, client, 4));
        return ip + 20;
    }
    HOST_CHECK(p->family == 6 && end - ip >= 60 && ip[0] >> 4 == 6 && ip[6] == 6 && ip[7] > 1);
    HOST_CHECK(get16(ip + 4) == (uint32_t)(end - ip) - 40);
    HOST_CHECK(!memcmp(ip + 8, server, 16) && !memcmp(ip + 24, client, 16));
    return ip + 40;
}

/* Reads what the guest has sent: all of it is right, or the program ends. */
static void segment_read(const uint8_t *frame, uint32_t len, path *p, segment *s) {
    const uint8_t *at = frame + 12, *end = frame + len;
    HOST_CHECK(len >= 54 && !memcmp(frame, segment_macs[0], 6) && !memcmp(frame + 6, segment_macs[1], 6));
    p->tagged = get16(at) == 0x8100;
    if (p->tagged) {
        HOST_CHECK(get16(at + 2) == 7);
        at += 4;
    }
    p->family = get16(at) == 0x0800 ? 4 : get16(at) == 0x86dd ? 6 : 0;
    const uint8_t *ip = at + 2, *tcp = read_ip(ip, end, p);
    const uint32_t header = (uint32_t)(tcp[12] >> 4) * 4;
    HOST_CHECK(header >= 20 && tcp + header <= end);
    HOST_CHECK(segment_sum(ip, p->family, tcp, (uint32_t)(end - tcp)) == 0xffff);
    HOST_CHECK(get16(tcp) == SERVER_PORT && !(tcp[12] & 15) && !(tcp[13] & 0xe0));
    p->port = (uint16_t)get16(tcp + 2);
    *s = (segment){.seq = get32(tcp + 4), .ack = get32(tcp + 8), .len = (uint32_t)(end - tcp) - header,
                   .window = (uint16_t)get16(tcp + 14), .flags = tcp[13], .data = tcp + header};
    read_options(tcp + 20, header - 20, s);
    HOST_CHECK(s->flags & FLAG_SYN || header == 20);
}

#endif /* TEST_TCP_SEGMENT_H */
