/* packet.h: what an Ethernet frame holds, read without trusting a byte of it.
 *
 * packet_parse() fills a struct packet from a frame: up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6
 * with at most 8 extension headers, fragments, and the first words of TCP, UDP, SCTP, ICMP and ICMPv6. It reads nothing
 * beyond the lengths that it was given and keeps no state. A frame that contradicts itself is PACKET_MALFORMED; so is
 * one whose route is set by its sender (IPv4 source route options, IPv6 routing headers with segments left), because
 * the destination in its header is not where it ends up (RFC 7126, RFC 5095).
 */
#ifndef EDGEOS_PACKET_H
#define EDGEOS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_EXTENSIONS_MAX 8 /* IPv6 extension headers; RFC 8200 names six kinds */

enum packet_kind { PACKET_OTHER, PACKET_ARP, PACKET_IP4, PACKET_IP6, PACKET_MALFORMED };
enum packet_fragment { PACKET_WHOLE, PACKET_FIRST, PACKET_LATER };

/* IP protocol numbers (IANA). */
enum {
    PROTO_HOP_BY_HOP = 0,
    PROTO_ICMP = 1,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_AUTHENTICATION = 51,
    PROTO_ICMP6 = 58,
    PROTO_DESTINATION = 60,
    PROTO_SCTP = 132,
    PROTO_HIDDEN = 256 /* a later fragment of an IPv6 packet whose extension headers lie in the first */
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

/* As it lies in the packet, since swapping bytes is dear in WebAssembly; an IPv4 address is the first half of `low`. */
struct packet_address {
    uint64_t high, low;
};

struct packet {
    const uint8_t *transport; /* first byte behind the IP headers */
    uint32_t transport_len;   /* bytes there, link-layer padding left out */
    uint32_t vlans;           /* outer id << 12 | inner id; 0 = untagged */
    uint32_t fragment_id;
    uint32_t fragment_offset; /* bytes */
    uint32_t header_end;      /* bytes of the packet's fragmentable part that its headers take */
    uint16_t proto;           /* upper-layer protocol, behind any extension headers */
    uint16_t src_port, dst_port;
    uint8_t kind;     /* enum packet_kind */
    uint8_t fragment; /* enum packet_fragment */
    uint8_t hop_limit;
    uint8_t tcp_flags;
    uint8_t icmp_type;
    bool icmp;  /* ICMP over IPv4 or ICMPv6 over IPv6, with its header here */
    bool ports; /* TCP, UDP or SCTP, with its header here */
    struct packet_address src, dst; /* last: packet_clear() leaves them to who knows them */
};

/* Short enough to become a few stores: clearing the whole struct would be a call into the runtime, per packet. */
static inline void packet_clear(struct packet *p) { __builtin_memset(p, 0, offsetof(struct packet, src)); }

static inline uint16_t packet_u16(const uint8_t *at) {
    uint16_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t packet_u32(const uint8_t *at) {
    uint32_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline struct packet_address packet_address_ip4(const uint8_t *at) {
    struct packet_address address = {0, 0};
    __builtin_memcpy(&address.low, at, 4);
    return address;
}

static inline struct packet_address packet_address_ip6(const uint8_t *at) {
    struct packet_address address;
    __builtin_memcpy(&address, at, sizeof address);
    return address;
}

static inline bool packet_address_equal(struct packet_address a, struct packet_address b) {
    return a.high == b.high && a.low == b.low;
}

static inline bool packet_proto_has_ports(uint32_t proto) {
    return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
}

static inline bool packet_is_extension(uint32_t proto) {
    return proto == PROTO_HOP_BY_HOP || proto == PROTO_ROUTING || proto == PROTO_FRAGMENT ||
           proto == PROTO_AUTHENTICATION || proto == PROTO_DESTINATION;
}

/* The functions below return whether the bytes hold together. `quoted` packets are those inside an ICMP error: cut off
 * anywhere behind the first 8 bytes of their transport header (RFC 792). */

static inline bool packet_parse_tcp(struct packet *p, bool quoted) {
    p->ports = true;
    if (quoted) return true;
    uint32_t header_len = (uint32_t)(p->transport[12] >> 4) * 4;
    p->tcp_flags = p->transport[13];
    return header_len >= 20 && header_len <= p->transport_len;
}

static inline bool packet_parse_udp(struct packet *p, bool quoted) {
    p->ports = true;
    uint32_t len = packet_u16(p->transport + 4);
    if (quoted) return true;
    return len >= 8 && (p->fragment != PACKET_WHOLE || len <= p->transport_len);
}

static inline uint32_t packet_header_len_min(const struct packet *p) {
    switch (p->proto) {
    case PROTO_TCP: return 20;
    case PROTO_SCTP: return 12;
    case PROTO_UDP: return 8;
    case PROTO_ICMP: return p->kind == PACKET_IP4 ? 8 : 0;
    case PROTO_ICMP6: return p->kind == PACKET_IP6 ? 8 : 0;
    default: return 0;
    }
}

static inline bool packet_parse_transport(struct packet *p, bool quoted) {
    uint32_t need = packet_header_len_min(p);
    p->header_end += need;
    if (p->transport_len < (quoted && need > 8 ? 8 : need)) return false;
    if (need == 0) return true;
    if (!packet_proto_has_ports(p->proto)) {
        p->icmp = true;
        p->icmp_type = p->transport[0];
        return true;
    }
    p->src_port = packet_u16(p->transport);
    p->dst_port = packet_u16(p->transport + 2);
    if (p->proto == PROTO_TCP) return packet_parse_tcp(p, quoted);
    if (p->proto == PROTO_UDP) return packet_parse_udp(p, quoted);
    p->ports = true;
    return true;
}

/* Notes which part of a packet this is; `len` is what the fragment carries. */
static inline bool packet_parse_fragment(struct packet *p, uint32_t offset, bool more, uint32_t id, uint32_t len,
                                         bool quoted) {
    p->fragment = offset ? PACKET_LATER : more ? PACKET_FIRST : PACKET_WHOLE;
    p->fragment_offset = offset;
    p->fragment_id = id;
    if (p->fragment == PACKET_WHOLE || quoted) return true;
    return len > 0 && offset + len <= 65535 && !(more && len % 8);
}

static inline bool packet_ip4_options_honest(const uint8_t *options, uint32_t len) {
    const uint8_t loose_source_route = 131, strict_source_route = 137;
    for (uint32_t at = 0; at < len && options[at] != 0;) {
        if (options[at] == 1) {
            at++;
            continue;
        }
        if (len - at < 2 || options[at + 1] < 2 || options[at + 1] > len - at) return false;
        if (options[at] == loose_source_route || options[at] == strict_source_route) return false;
        at += options[at + 1];
    }
    return true;
}

static inline bool packet_parse_ip4(struct packet *p, const uint8_t *data, uint32_t len, bool quoted) {
    p->kind = PACKET_IP4;
    if (len < 20 || data[0] >> 4 != 4) return false;
    uint32_t header_len = (uint32_t)(data[0] & 15) * 4, total = packet_u16(data + 2);
    if (total > len && !quoted) return false;
    if (total > len) total = len;
    if (header_len < 20 || header_len > total) return false;
    if (header_len > 20 && !packet_ip4_options_honest(data + 20, header_len - 20)) return false;
    p->hop_limit = data[8];
    p->proto = data[9];
    p->src = packet_address_ip4(data + 12);
    p->dst = packet_address_ip4(data + 16);
    p->transport = data + header_len;
    p->transport_len = total - header_len;
    uint32_t word = packet_u16(data + 6);
    bool more = (word & 0x2000) != 0;
    uint32_t offset = (word & 0x1fff) * 8, id = packet_u16(data + 4);
    if (!packet_parse_fragment(p, offset, more, id, p->transport_len, quoted)) return false;
    return p->fragment == PACKET_LATER || packet_parse_transport(p, quoted);
}

static inline uint32_t packet_extension_len(uint32_t type, const uint8_t *header) {
    if (type == PROTO_FRAGMENT) return 8;
    if (type == PROTO_AUTHENTICATION) return ((uint32_t)header[1] + 2) * 4;
    return ((uint32_t)header[1] + 1) * 8;
}

static inline bool packet_parse_ip6(struct packet *p, const uint8_t *data, uint32_t len, bool quoted) {
    p->kind = PACKET_IP6;
    if (len < 40 || data[0] >> 4 != 6) return false;
    uint32_t end = 40 + (uint32_t)packet_u16(data + 4);
    if (end > len && !quoted) return false;
    if (end > len) end = len;
    p->hop_limit = data[7];
    p->src = packet_address_ip6(data + 8);
    p->dst = packet_address_ip6(data + 24);

    uint32_t type = data[6], at = 40, fragmentable = 40;
    bool fragment_seen = false;
    for (uint32_t count = 0; packet_is_extension(type); count++) {
        const uint8_t *header = data + at;
        if (count == PACKET_EXTENSIONS_MAX || end - at < 8) return false;
        uint32_t header_len = packet_extension_len(type, header);
        if (header_len > end - at) return false;
        if (type == PROTO_HOP_BY_HOP && count != 0) return false;
        if (type == PROTO_ROUTING && header[3] != 0) return false;
        if (type == PROTO_FRAGMENT) {
            if (fragment_seen) return false;
            fragment_seen = true;
            fragmentable = at + 8;
            uint32_t word = packet_u16(header + 2), rest = end - fragmentable;
            if (!packet_parse_fragment(p, word & 0xfff8, word & 1, packet_u32(header + 4), rest, quoted)) return false;
        }
        type = header[0];
        at += header_len;
        if (p->fragment == PACKET_LATER) break;
    }
    p->proto = (uint16_t)(packet_is_extension(type) ? PROTO_HIDDEN : type);
    p->transport = data + at;
    p->transport_len = end - at;
    if (p->fragment == PACKET_LATER) return true;
    p->header_end = at - fragmentable;
    return packet_parse_transport(p, quoted);
}

static inline void packet_parse(struct packet *p, const uint8_t *data, uint32_t len) {
    packet_clear(p);
    uint32_t at = 12;
    bool whole = len >= 14;
    uint32_t type = whole ? packet_u16(data + at) : 0;
    for (int tags = 0; tags < 2 && whole && (type == 0x8100 || type == 0x88a8); tags++) {
        whole = len >= at + 6;
        if (!whole) break;
        p->vlans = p->vlans << 12 | (packet_u16(data + at + 2) & 0xfff);
        at += 4;
        type = packet_u16(data + at);
    }
    at += 2;
    if (!whole) {
        p->kind = PACKET_MALFORMED;
    } else if (type == 0x0800) {
        if (!packet_parse_ip4(p, data + at, len - at, false)) p->kind = PACKET_MALFORMED;
    } else if (type == 0x86dd) {
        if (!packet_parse_ip6(p, data + at, len - at, false)) p->kind = PACKET_MALFORMED;
    } else {
        p->kind = type == 0x0806 ? PACKET_ARP : PACKET_OTHER;
        p->src = p->dst = (struct packet_address){0, 0};
    }
}

/* The packet that an ICMP error speaks of, as far as the error quotes it. */
static inline bool packet_parse_quoted(struct packet *quoted, const struct packet *error) {
    packet_clear(quoted);
    const uint8_t *data = error->transport + 8;
    uint32_t len = error->transport_len - 8;
    if (error->kind == PACKET_IP4) return packet_parse_ip4(quoted, data, len, true);
    return packet_parse_ip6(quoted, data, len, true);
}

/* Whether this is an ICMP message about a packet that could not be delivered, which it quotes. */
static inline bool packet_is_icmp_error(const struct packet *p) {
    if (!p->icmp) return false;
    if (p->kind == PACKET_IP6) return p->icmp_type >= 1 && p->icmp_type <= 4;
    return p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12;
}

#endif /* EDGEOS_PACKET_H */
