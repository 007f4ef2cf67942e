/* wire.h: segments as they are on the wire: read from a frame, with every length and checksum checked, and written to one.
 *
 * A frame is Ethernet, with at most one VLAN tag, around IPv4 or IPv6 without extension headers. */
#ifndef TCP_WIRE_H
#define TCP_WIRE_H

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

#define TCP_LINK_MAX 18u /* Ethernet with a tag */
#define TCP_HEADER 20u
#define TCP_HEADERS_MAX (TCP_LINK_MAX + 40u + TCP_HEADER)
#define TCP_NO_SCALE 255

/* A segment that has arrived. */
struct tcp_segment {
    uint8_t *frame;
    uint8_t *ip;
    uint8_t *tcp;
    uint8_t *payload;
    uint32_t len; /* bytes of payload */
    uint32_t seq, ack;
    uint32_t window; /* as it stands there, not scaled */
    uint16_t mss;    /* of a SYN; 0: it names none */
    uint8_t scale;   /* of a SYN, or TCP_NO_SCALE */
    uint8_t flags;
    bool v6;
};

static inline uint16_t tcp_get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline uint32_t tcp_get32(const uint8_t *at) {
    uint32_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline void tcp_put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void tcp_put32(uint8_t *at, uint32_t value) {
    value = __builtin_bswap32(value);
    __builtin_memcpy(at, &value, sizeof value);
}

/* ---- Checksums (RFC 1071), over words as they lie in memory ---- */

static inline uint64_t tcp_sum(const uint8_t *at, uint32_t len) {
    uint64_t sum = 0;
    for (; len >= 4; at += 4, len -= 4) {
        uint32_t word;
        __builtin_memcpy(&word, at, sizeof word);
        sum += word;
    }
    uint32_t rest = 0;
    __builtin_memcpy(&rest, at, len & 1);
    if (len & 2) {
        uint16_t half;
        __builtin_memcpy(&half, at, sizeof half);
        rest = half;
        if (len & 1) rest += (uint32_t)at[2] << 16;
    }
    return sum + rest;
}

static inline uint16_t tcp_fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* The pseudo header's part: addresses, protocol and length. */
static inline uint64_t tcp_pseudo_sum(const uint8_t *ip, bool v6, uint32_t tcp_len) {
    const uint64_t rest = (uint64_t)6 << 8 | (uint64_t)(tcp_len >> 8 & 255) << 16 | (uint64_t)(tcp_len & 255) << 24;
    return rest + (v6 ? tcp_sum(ip + 8, 32) : tcp_sum(ip + 12, 8));
}

/* ---- Reading ---- */

/* The options of a SYN; what is malformed among them ends the reading. */
static void tcp_read_options(struct tcp_segment *s, const uint8_t *at, const uint8_t *end) {
    while (at < end && *at != 0) {
        if (*at == 1) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at) return;
        if (at[0] == 2 && at[1] == 4) s->mss = tcp_get16(at + 2);
        if (at[0] == 3 && at[1] == 3) s->scale = at[2] > 14 ? 14 : at[2]; /* RFC 7323 */
        at += at[1];
    }
}

/* The IP header: where TCP starts, and how much of it there is; 0: nothing for us. */
static uint32_t tcp_read_ip(struct tcp_segment *s, const uint8_t *end) {
    const uint8_t *ip = s->ip;
    const uint32_t have = (uint32_t)(end - ip);
    if (s->v6) {
        if (have < 40 || ip[0] >> 4 != 6 || ip[6] != 6) return 0;
        const uint32_t len = tcp_get16(ip + 4);
        if (len > have - 40 || ip[24] == 0xff || ip[8] == 0xff) return 0;
        s->tcp = s->ip + 40;
        return len;
    }
    if (have < 20) return 0;
    const uint32_t header = (ip[0] & 15u) * 4, len = tcp_get16(ip + 2);
    if (ip[0] >> 4 != 4 || header < 20 || len < header || len > have || ip[9] != 6) return 0;
    if (tcp_get16(ip + 6) & 0x3fff) return 0; /* a fragment */
    if (ip[16] >= 224 || ip[12] >= 224 || tcp_fold(tcp_sum(ip, header)) != 0xffff) return 0;
    s->tcp = s->ip + header;
    return len - header;
}

/* A whole and sound segment for one host, or false. */
static bool tcp_read(struct tcp_segment *s, uint8_t *frame, uint32_t frame_len) {
    if (frame_len < 14 || frame[0] & 1) return false;
    const uint32_t tag = tcp_get16(frame + 12) == 0x8100 ? 4 : 0;
    if (frame_len < 14 + tag) return false;
    const uint16_t type = tcp_get16(frame + 12 + tag);
    if (type != 0x0800 && type != 0x86dd) return false;
    s->frame = frame;
    s->ip = frame + 14 + tag;
    s->v6 = type == 0x86dd;
    const uint32_t tcp_len = tcp_read_ip(s, frame + frame_len);
    if (tcp_len < TCP_HEADER) return false;
    const uint32_t header = (s->tcp[12] >> 4) * 4u;
    if (header < TCP_HEADER || header > tcp_len) return false;
    if (tcp_fold(tcp_pseudo_sum(s->ip, s->v6, tcp_len) + tcp_sum(s->tcp, tcp_len)) != 0xffff) return false;
    s->payload = s->tcp + header;
    s->len = tcp_len - header;
    s->seq = tcp_get32(s->tcp + 4);
    s->ack = tcp_get32(s->tcp + 8);
    s->flags = s->tcp[13];
    s->window = tcp_get16(s->tcp + 14);
    s->mss = 0;
    s->scale = TCP_NO_SCALE;
    if (s->flags & TCP_SYN) tcp_read_options(s, s->tcp + TCP_HEADER, s->payload);
    return true;
}

/* ---- Writing ---- */

/* The headers of all segments that go back to where `s` came from, without what differs from one to the next. */
struct tcp_headers {
    uint8_t bytes[TCP_HEADERS_MAX];
    uint8_t link; /* bytes of the link's header */
    bool v6;
    uint32_t ip_sum;  /* of IPv4's header as it stands */
    uint32_t tcp_sum; /* of the pseudo header without the length, and the ports */
};

static inline uint32_t tcp_headers_len(const struct tcp_headers *h) { return h->link + (h->v6 ? 40u : 20u) + TCP_HEADER; }

static void tcp_headers_back(struct tcp_headers *h, const struct tcp_segment *s) {
    const uint32_t link = (uint32_t)(s->ip - s->frame);
    uint8_t *ip = h->bytes + link;
    __builtin_memset(h, 0, sizeof *h);
    h->link = (uint8_t)link;
    h->v6 = s->v6;
    __builtin_memcpy(h->bytes, s->frame + 6, 6);
    __builtin_memcpy(h->bytes + 6, s->frame, 6);
    __builtin_memcpy(h->bytes + 12, s->frame + 12, link - 12);
    if (s->v6) {
        ip[0] = 0x60;
        ip[6] = 6;
        ip[7] = 64;
        __builtin_memcpy(ip + 8, s->ip + 24, 16);
        __builtin_memcpy(ip + 24, s->ip + 8, 16);
    } else {
        ip[0] = 0x45;
        ip[8] = 64;
        ip[9] = 6;
        __builtin_memcpy(ip + 12, s->ip + 16, 4);
        __builtin_memcpy(ip + 16, s->ip + 12, 4);
        h->ip_sum = tcp_fold(tcp_sum(ip, 20));
    }
    uint8_t *tcp = ip + (s->v6 ? 40 : 20);
    __builtin_memcpy(tcp, s->tcp + 2, 2);
    __builtin_memcpy(tcp + 2, s->tcp, 2);
    h->tcp_sum = tcp_fold(tcp_pseudo_sum(ip, s->v6, 0) + tcp_sum(tcp, 4));
}

/* Whether a segment is between these two ends. */
static inline bool tcp_headers_match(const struct tcp_headers *h, const struct tcp_segment *s) {
    const uint8_t *ip = h->bytes + h->link, *tcp = ip + (h->v6 ? 40 : 20);
    if (h->v6 != s->v6 || __builtin_memcmp(tcp, s->tcp + 2, 2) != 0 || __builtin_memcmp(tcp + 2, s->tcp, 2) != 0) return false;
    if (h->v6) return __builtin_memcmp(ip + 8, s->ip + 24, 16) == 0 && __builtin_memcmp(ip + 24, s->ip + 8, 16) == 0;
    return __builtin_memcmp(ip + 12, s->ip + 16, 4) == 0 && __builtin_memcmp(ip + 16, s->ip + 12, 4) == 0;
}

/* Where the next segment leads, if it comes from another router than the last. */
static inline void tcp_headers_follow(struct tcp_headers *h, const struct tcp_segment *s) {
    if ((uint32_t)(s->ip - s->frame) == h->link) __builtin_memcpy(h->bytes, s->frame + 6, 6);
}

/* What differs. */
struct tcp_outgoing {
    uint32_t seq, ack;
    uint32_t len; /* bytes of payload, which stand behind the headers and options already */
    uint16_t window;
    uint8_t flags;
    uint8_t options; /* bytes of options, likewise */
};

/* Writes the headers in front of options and payload, whose sum is given. Returns the bytes of the frame. */
static uint32_t tcp_write(uint8_t *frame, const struct tcp_headers *h, const struct tcp_outgoing *o, uint64_t sum) {
    const uint32_t headers = tcp_headers_len(h), tcp_len = TCP_HEADER + o->options + o->len;
    if (headers == 54) { /* IPv4 without a tag, of a size that the compiler knows */
        __builtin_memcpy(frame, h->bytes, 54);
    } else {
        __builtin_memcpy(frame, h->bytes, headers);
    }
    uint8_t *ip = frame + h->link, *tcp = frame + headers - TCP_HEADER;
    if (h->v6) {
        tcp_put16(ip + 4, tcp_len);
    } else {
        static uint16_t number; /* fragments of one packet have it in common */
        tcp_put16(ip + 2, 20 + tcp_len);
        tcp_put16(ip + 4, ++number);
        const uint16_t check = (uint16_t)~tcp_fold(h->ip_sum + tcp_sum(ip + 2, 4));
        __builtin_memcpy(ip + 10, &check, sizeof check);
    }
    tcp_put32(tcp + 4, o->seq);
    tcp_put32(tcp + 8, o->ack);
    tcp[12] = (uint8_t)((TCP_HEADER + o->options) / 4 << 4);
    tcp[13] = o->flags;
    tcp_put16(tcp + 14, o->window);
    const uint64_t length = (uint64_t)(tcp_len >> 8 & 255) | (uint64_t)(tcp_len & 255) << 8;
    const uint16_t check = (uint16_t)~tcp_fold(sum + h->tcp_sum + length + tcp_sum(tcp + 4, 12));
    __builtin_memcpy(tcp + 16, &check, sizeof check);
    return headers + o->options + o->len;
}

#endif /* TCP_WIRE_H */
