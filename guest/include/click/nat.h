/* nat.h: the mapping tables of rewriters: which flow becomes which other one, both ways.
 *
 * A mapping has two flows, as packets of each direction look when they arrive: `flow[0]` by which it was made, `flow[1]` that
 * of the answers. A packet of one direction leaves as the other direction's flow reversed. Both are keys of the table, and no
 * two mappings share one, so translation is one to one at every moment. Addresses and ports are as they lie in packets.
 *
 * A mapping that has not been used for its timeout is as good as gone: it is removed when it is met, or when its place is
 * needed. In a full table the one of those looked at that was used longest ago gives way, unless its guarantee still holds.
 */
#ifndef CLICK_NAT_H
#define CLICK_NAT_H

#include <click/ip.h>
#include <click/text.h>

typedef struct click_flow {
    uint32_t saddr, daddr;
    uint16_t sport, dport;
} click_flow;

enum { NAT_TCP_DATA = 1, NAT_TCP_FIN = 4, NAT_SEEN = 16, NAT_STREAMING = 64 }; /* the first three shifted by the direction */

typedef struct click_mapping {
    click_flow flow[2];
    uint64_t used_at;
    uint32_t next[2];       /* the next key of the same bucket */
    uint16_t ip_delta[2];   /* what a direction's changes add to the IP checksum's sum, */
    uint16_t port_delta[2]; /* and its ports' to that of TCP or UDP besides */
    uint8_t output[2];
    uint8_t protocol; /* 0: any */
    uint8_t state;
    uint32_t packets; /* up to 3 */
} click_mapping;

/* Nanoseconds. */
typedef struct click_nat_times {
    uint64_t tcp, tcp_done, tcp_nodata, tcp_guarantee;
    uint64_t udp, udp_streaming, udp_guarantee;
} click_nat_times;

typedef struct click_nat {
    click_mapping *mappings;
    uint32_t *buckets; /* keys: 2 * place + direction + 1, 0 = none */
    uint32_t capacity, bucket_mask;
    const click_nat_times *times;
    uint32_t used;      /* places that have ever been taken */
    uint32_t free;      /* the first place that was given back, + 1; they are linked by next[0] */
    uint32_t hand;      /* where the search for a place goes on */
    uint32_t size;      /* mappings that there are */
    uint64_t seed;      /* of the hash, so that nobody outside can choose flows of one bucket */
    uint64_t failures;
} click_nat;

#define CLICK_NAT_LOOKED_AT 256u /* places that are looked at for one to take */
#define CLICK_NAT_PORTS_TRIED 2048u

static inline click_flow click_flow_reversed(click_flow f) {
    return (click_flow){f.daddr, f.saddr, f.dport, f.sport};
}

static inline bool click_flow_same(const click_flow *a, const click_flow *b) {
    return a->saddr == b->saddr && a->daddr == b->daddr && a->sport == b->sport && a->dport == b->dport;
}

static inline uint32_t click_nat_bucket(const click_nat *nat, const click_flow *f, uint8_t protocol) {
    uint64_t x = ((uint64_t)f->saddr << 32 | f->daddr) ^ nat->seed;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x += (uint64_t)protocol << 32 | (uint64_t)f->sport << 16 | f->dport;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 32;
    return (uint32_t)x & nat->bucket_mask;
}

/* ---- The life of a mapping ---- */

static inline uint64_t click_mapping_timeout(const click_nat *nat, const click_mapping *m) {
    if (m->protocol != IP_TCP) return m->state & NAT_STREAMING ? nat->times->udp_streaming : nat->times->udp;
    if ((m->state & (3 * NAT_TCP_FIN)) == 3 * NAT_TCP_FIN) return nat->times->tcp_done;
    return (m->state & (3 * NAT_TCP_DATA)) == 3 * NAT_TCP_DATA ? nat->times->tcp : nat->times->tcp_nodata;
}

static inline bool click_mapping_expired(const click_nat *nat, const click_mapping *m) {
    return click_now - m->used_at > click_mapping_timeout(nat, m);
}

static void click_nat_unlink(click_nat *nat, uint32_t key) {
    click_mapping *m = &nat->mappings[(key - 1) / 2];
    const uint32_t direction = (key - 1) & 1;
    uint32_t *link = &nat->buckets[click_nat_bucket(nat, &m->flow[direction], m->protocol)];
    while (*link != key) link = &nat->mappings[(*link - 1) / 2].next[(*link - 1) & 1];
    *link = m->next[direction];
}

static void click_nat_remove(click_nat *nat, uint32_t place) {
    click_nat_unlink(nat, 2 * place + 1);
    click_nat_unlink(nat, 2 * place + 2);
    nat->mappings[place].used_at = 0;
    nat->mappings[place].next[0] = nat->free;
    nat->free = place + 1;
    nat->size--;
}

/* The key of the mapping that a flow belongs to, 0 when there is none. */
static uint32_t click_nat_find(click_nat *nat, const click_flow *flow, uint8_t protocol) {
    uint32_t key = nat->buckets[click_nat_bucket(nat, flow, protocol)];
    while (key) {
        const click_mapping *m = &nat->mappings[(key - 1) / 2];
        const uint32_t direction = (key - 1) & 1;
        if (m->protocol == protocol && click_flow_same(&m->flow[direction], flow)) {
            if (!click_mapping_expired(nat, m)) return key;
            click_nat_remove(nat, (key - 1) / 2);
            return 0;
        }
        key = m->next[direction];
    }
    return 0;
}

/* A place in a full table, or the capacity where all that were looked at are guaranteed. */
static uint32_t click_nat_make_room(click_nat *nat) {
    uint32_t oldest = nat->capacity;
    for (uint32_t n = 0; n < nat->capacity && n < CLICK_NAT_LOOKED_AT; n++) {
        const uint32_t place = nat->hand;
        nat->hand = place + 1 == nat->capacity ? 0 : place + 1;
        const click_mapping *m = &nat->mappings[place];
        if (click_mapping_expired(nat, m)) {
            oldest = place;
            break;
        }
        const uint64_t guarantee = m->protocol == IP_TCP ? nat->times->tcp_guarantee : nat->times->udp_guarantee;
        if (click_now - m->used_at < guarantee) continue;
        if (oldest == nat->capacity || m->used_at < nat->mappings[oldest].used_at) oldest = place;
    }
    if (oldest != nat->capacity) click_nat_remove(nat, oldest);
    return oldest;
}

static uint32_t click_nat_place(click_nat *nat) {
    if (!nat->free && nat->used < nat->capacity) return nat->used++;
    if (!nat->free && click_nat_make_room(nat) == nat->capacity) return nat->capacity;
    const uint32_t place = nat->free - 1;
    nat->free = nat->mappings[place].next[0];
    return place;
}

static void click_nat_link(click_nat *nat, uint32_t key) {
    click_mapping *m = &nat->mappings[(key - 1) / 2];
    uint32_t *bucket = &nat->buckets[click_nat_bucket(nat, &m->flow[(key - 1) & 1], m->protocol)];
    m->next[(key - 1) & 1] = *bucket;
    *bucket = key;
}

/* What one's-complement sums gain when one value becomes another. */
static inline uint16_t click_delta32(uint32_t before, uint32_t after) {
    const uint32_t gone = ~before;
    uint32_t sum = (gone & 0xffff) + (gone >> 16) + (after & 0xffff) + (after >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static inline uint16_t click_add_deltas(uint16_t a, uint16_t b) {
    const uint32_t sum = (uint32_t)a + b;
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static void click_mapping_deltas(click_mapping *m) {
    for (uint32_t d = 0; d < 2; d++) {
        const click_flow from = m->flow[d], to = click_flow_reversed(m->flow[1 - d]);
        m->ip_delta[d] = click_add_deltas(click_delta32(from.saddr, to.saddr), click_delta32(from.daddr, to.daddr));
        m->port_delta[d] = click_add_deltas(click_delta32(from.sport, to.sport), click_delta32(from.dport, to.dport));
    }
}

/* Adds a mapping by which `from` becomes `to`. The key of its first direction, or 0 when there is no room or the answers'
 * flow belongs to another mapping. */
static uint32_t click_nat_add(click_nat *nat, const click_flow *from, const click_flow *to, uint8_t protocol,
                              uint8_t output, uint8_t reply_output) {
    const click_flow answers = click_flow_reversed(*to);
    if (click_flow_same(from, &answers) || click_nat_find(nat, &answers, protocol)) return 0;
    const uint32_t place = click_nat_place(nat);
    if (place == nat->capacity) return 0;
    click_mapping *m = &nat->mappings[place];
    __builtin_memset(m, 0, sizeof *m);
    m->flow[0] = *from;
    m->flow[1] = answers;
    m->used_at = click_now;
    m->output[0] = output;
    m->output[1] = reply_output;
    m->protocol = protocol;
    click_mapping_deltas(m);
    nat->size++;
    click_nat_link(nat, 2 * place + 1);
    click_nat_link(nat, 2 * place + 2);
    return 2 * place + 1;
}

/* ---- Patterns: what a new flow becomes ---- */

enum { NAT_PREFER = 0, NAT_SEQUENTIAL = 1, NAT_RANDOM = 2 };

typedef struct click_pattern {
    bool has_saddr, has_sport, has_daddr, has_dport;
    uint8_t choice;                /* of NAT_PREFER and so on */
    uint8_t output, reply_output;
    uint32_t saddr, saddr_last;    /* addresses from the first to the last, in host order; equal for a single one */
    uint32_t daddr;                /* as it lies */
    uint16_t sport, sport_last;    /* host order */
    uint16_t dport;                /* as it lies */
} click_pattern;

/* Adds a mapping by a pattern, of which `cursor` is the state: the key, or 0. */
static uint32_t click_nat_add_pattern(click_nat *nat, const click_pattern *pattern, uint32_t *cursor,
                                      const click_flow *flow, uint8_t protocol) {
    click_flow to = *flow;
    if (pattern->has_saddr) to.saddr = click_swap32(pattern->saddr);
    if (pattern->has_daddr) to.daddr = pattern->daddr;
    if (pattern->has_dport) to.dport = pattern->dport;
    if (!pattern->has_sport) return click_nat_add(nat, flow, &to, protocol, pattern->output, pattern->reply_output);
    const uint32_t count = pattern->sport_last - pattern->sport + 1u, own = click_swap16(flow->sport);
    const bool fits = own >= pattern->sport && own <= pattern->sport_last;
    uint32_t at = pattern->choice == NAT_SEQUENTIAL        ? *cursor % count
                  : pattern->choice == NAT_PREFER && fits ? own - pattern->sport
                                                           : click_random() % count;
    /* One more than there are: the first may be one's own, in front of a whole round from some other. */
    for (uint32_t n = 0; n <= count && n < CLICK_NAT_PORTS_TRIED; n++) {
        to.sport = click_swap16((uint16_t)(pattern->sport + at));
        const click_flow answers = click_flow_reversed(to);
        const bool first = n == 0;
        at = at + 1 == count ? 0 : at + 1;
        if (click_nat_find(nat, &answers, protocol)) {
            if (first && pattern->choice != NAT_SEQUENTIAL) at = click_random() % count;
            continue;
        }
        *cursor = at;
        return click_nat_add(nat, flow, &to, protocol, pattern->output, pattern->reply_output);
    }
    return 0;
}

/* The same for IPAddrRewriter, whose patterns are a range of addresses. */
static uint32_t click_nat_add_address(click_nat *nat, const click_pattern *pattern, uint32_t *cursor,
                                      const click_flow *flow, uint8_t protocol) {
    click_flow to = {flow->saddr, 0, 0, 0};
    if (!pattern->has_saddr) return click_nat_add(nat, flow, &to, protocol, pattern->output, pattern->reply_output);
    const uint32_t count = pattern->saddr_last - pattern->saddr + 1; /* 0: all that there are */
    uint32_t at = pattern->choice == NAT_SEQUENTIAL ? *cursor : click_random();
    if (count) at %= count;
    for (uint32_t n = 0; (n < count || !count) && n < CLICK_NAT_PORTS_TRIED; n++) {
        to.saddr = click_swap32(pattern->saddr + at);
        at = at + 1 == count ? 0 : at + 1;
        const click_flow answers = click_flow_reversed(to);
        if (click_nat_find(nat, &answers, protocol)) continue;
        *cursor = at;
        return click_nat_add(nat, flow, &to, protocol, pattern->output, pattern->reply_output);
    }
    return 0;
}

/* ---- Handlers ---- */

static void click_nat_reap(click_nat *nat) {
    for (uint32_t place = 0; place < nat->used; place++) {
        if (nat->mappings[place].used_at && click_mapping_expired(nat, &nat->mappings[place])) click_nat_remove(nat, place);
    }
}

static void click_text_flow(click_text *out, const click_flow *flow) {
    click_text_char(out, '(');
    click_text_ip4(out, flow->saddr);
    click_text_string(out, ", ");
    click_text_unsigned(out, click_swap16(flow->sport));
    click_text_string(out, ", ");
    click_text_ip4(out, flow->daddr);
    click_text_string(out, ", ");
    click_text_unsigned(out, click_swap16(flow->dport));
    click_text_char(out, ')');
}

/* A line for each mapping of a protocol, 0 for all. */
static void click_text_mappings(click_text *out, click_nat *nat, uint8_t protocol) {
    click_nat_reap(nat);
    for (uint32_t place = 0; place < nat->used; place++) {
        const click_mapping *m = &nat->mappings[place];
        if (!m->used_at || (protocol && m->protocol != protocol)) continue;
        const click_flow to = click_flow_reversed(m->flow[1]);
        click_text_flow(out, &m->flow[0]);
        click_text_string(out, " => ");
        click_text_flow(out, &to);
        click_text_string(out, " [");
        click_text_unsigned(out, m->output[0]);
        click_text_char(out, ' ');
        click_text_unsigned(out, m->output[1]);
        click_text_string(out, "]\n");
    }
}

/* ---- Packets of TCP and UDP ---- */

/* Their flow; false when the packet has none: another protocol, a later fragment, or too short. */
static inline bool click_flow_of(const click_packet *p, uint8_t *ip, click_flow *flow) {
    const uint8_t *transport = click_ip_payload(ip);
    const uint8_t protocol = ip[IP_PROTOCOL];
    const uint32_t least = protocol == IP_TCP ? 18 : UDP_HEADER; /* the checksum must be there */
    if ((protocol != IP_TCP && protocol != IP_UDP) || !click_ip_is_first(ip) || click_ip_payload_len(p, ip) < least) return false;
    *flow = (click_flow){click_raw32(ip + IP_SRC), click_raw32(ip + IP_DST), click_raw16(transport), click_raw16(transport + 2)};
    return true;
}

static inline void click_apply_delta(uint8_t *checksum, uint16_t delta) {
    click_put_raw16(checksum, click_sum_fold((uint32_t)(uint16_t)~click_raw16(checksum) + delta));
}

/* What a packet tells about its connection. */
static inline void click_mapping_seen(click_mapping *m, uint32_t direction, const click_packet *p, const uint8_t *ip) {
    m->used_at = click_now;
    if (m->protocol == IP_TCP) {
        const uint32_t len = click_ip_payload_len(p, ip);
        const uint8_t *tcp = ip + click_ip_header_len(ip), flags = tcp[13];
        if (flags & 4) m->state |= 3 * NAT_TCP_FIN; /* RST */
        if (flags & 1) m->state |= (uint8_t)(NAT_TCP_FIN << direction);
        if ((flags & 0x16) == 2) m->state = 0; /* a SYN begins anew */
        if (len > (tcp[12] >> 4) * 4u) m->state |= (uint8_t)(NAT_TCP_DATA << direction);
    } else if (!(m->state & NAT_STREAMING)) {
        m->state |= (uint8_t)(NAT_SEEN << direction);
        if (m->packets < 3) m->packets++;
        if (m->packets == 3 && (m->state & (3 * NAT_SEEN)) == 3 * NAT_SEEN) m->state |= NAT_STREAMING;
    }
}

/* Gives a packet the flow that its mapping says. */
static inline void click_rewrite(click_mapping *m, uint32_t direction, click_packet *p, uint8_t *ip, bool annotate) {
    const click_flow to = click_flow_reversed(m->flow[1 - direction]);
    uint8_t *transport = click_ip_payload(ip);
    click_mapping_seen(m, direction, p, ip);
    click_put_raw32(ip + IP_SRC, to.saddr);
    click_put_raw32(ip + IP_DST, to.daddr);
    click_apply_delta(ip + IP_SUM, m->ip_delta[direction]);
    click_put_raw16(transport, to.sport);
    click_put_raw16(transport + 2, to.dport);
    const uint16_t delta = click_add_deltas(m->ip_delta[direction], m->port_delta[direction]);
    if (ip[IP_PROTOCOL] == IP_TCP) {
        click_apply_delta(transport + 16, delta);
    } else if (click_raw16(transport + 6)) {
        click_apply_delta(transport + 6, delta);
        if (click_raw16(transport + 6) == 0) click_put_raw16(transport + 6, 0xffff);
    }
    if (annotate) p->dst_ip = to.daddr;
}

/* ---- ICMP errors, which quote the packet that they are about ---- */

typedef struct click_quoted {
    uint8_t *icmp, *ip, *transport;
    uint32_t icmp_len;
    uint32_t there; /* bytes of the quoted packet's transport header */
    click_flow answers; /* the quoted packet's flow the other way; ports only where they are known */
} click_quoted;

static bool click_quote(const click_packet *p, click_quoted *q) {
    uint8_t *ip = click_ip(p);
    if (!ip || ip[IP_PROTOCOL] != IP_ICMP || !click_ip_is_first(ip)) return false;
    q->icmp = click_ip_payload(ip);
    q->icmp_len = click_ip_payload_len(p, ip);
    if (q->icmp_len < ICMP_HEADER + IP_HEADER) return false;
    const uint8_t type = q->icmp[0];
    if (type != 3 && type != 4 && type != 5 && type != 11 && type != 12) return false;
    q->ip = q->icmp + ICMP_HEADER;
    const uint32_t header = click_ip_header_len(q->ip), len = q->icmp_len - ICMP_HEADER;
    if (q->ip[0] >> 4 != 4 || header < IP_HEADER || header > len) return false;
    q->transport = q->ip + header;
    q->there = click_ip_is_first(q->ip) ? len - header : 0;
    q->answers = (click_flow){click_raw32(q->ip + IP_DST), click_raw32(q->ip + IP_SRC), 0, 0};
    return true;
}

static inline uint32_t click_quoted_flow(const click_quoted *q, click_nat *nat) {
    const uint8_t protocol = q->ip[IP_PROTOCOL];
    if ((protocol != IP_TCP && protocol != IP_UDP) || q->there < 4) return 0;
    click_flow answers = q->answers;
    answers.sport = click_raw16(q->transport + 2);
    answers.dport = click_raw16(q->transport);
    return click_nat_find(nat, &answers, protocol);
}

static inline uint32_t click_quoted_ping(const click_quoted *q, click_nat *nat) {
    if (q->ip[IP_PROTOCOL] != IP_ICMP || q->there < ICMP_HEADER) return 0;
    if (q->transport[0] != ICMP_ECHO && q->transport[0] != ICMP_ECHO_REPLY) return 0;
    click_flow answers = q->answers;
    const uint16_t id = click_raw16(q->transport + 4);
    if (q->transport[0] == ICMP_ECHO) {
        answers.dport = id;
    } else {
        answers.sport = id;
    }
    return click_nat_find(nat, &answers, IP_ICMP);
}

static inline uint32_t click_quoted_address(const click_quoted *q, click_nat *nat) {
    const click_flow from = {q->answers.saddr, 0, 0, 0}, to = {0, q->answers.daddr, 0, 0};
    const uint32_t key = click_nat_find(nat, &from, 0);
    return key ? key : click_nat_find(nat, &to, 0);
}

static void click_quoted_ports(click_quoted *q, const click_mapping *m, click_flow answers, uint16_t delta) {
    if (m->protocol == IP_ICMP) {
        const uint16_t before = click_raw16(q->transport + 4);
        const uint16_t id = q->transport[0] == ICMP_ECHO ? answers.dport : answers.sport;
        click_put_raw16(q->transport + 4, id);
        click_put_raw16(q->transport + 2, click_checksum_update16(click_raw16(q->transport + 2), before, id));
        return;
    }
    if (m->protocol) {
        click_put_raw16(q->transport, answers.dport);
        click_put_raw16(q->transport + 2, answers.sport);
    }
    const uint8_t protocol = q->ip[IP_PROTOCOL];
    if (protocol == IP_TCP && q->there >= 18) click_apply_delta(q->transport + 16, delta);
    if (protocol == IP_UDP && q->there >= UDP_HEADER && click_raw16(q->transport + 6)) click_apply_delta(q->transport + 6, delta);
}

/* `m` and `direction` belong to answers to the quoted packet: these would be given the other direction's flow reversed. */
static void click_rewrite_quoted(click_packet *p, click_quoted *q, const click_mapping *m, uint32_t direction, bool annotate) {
    uint8_t *ip = click_ip(p);
    const uint32_t before = click_sum(q->icmp, q->icmp_len);
    click_flow answers = click_flow_reversed(m->flow[1 - direction]);
    if (!m->protocol) { /* of hosts' mappings one address is known: the other stays */
        if (!answers.saddr) answers.saddr = q->answers.saddr;
        if (!answers.daddr) answers.daddr = q->answers.daddr;
    }
    if (click_raw32(ip + IP_DST) == q->answers.daddr) {
        click_ip_put32(ip, IP_DST, answers.daddr);
        if (annotate) p->dst_ip = answers.daddr;
    }
    if (click_raw32(ip + IP_SRC) == q->answers.saddr) click_ip_put32(ip, IP_SRC, answers.saddr);
    click_ip_put32(q->ip, IP_SRC, answers.daddr);
    click_ip_put32(q->ip, IP_DST, answers.saddr);
    click_quoted_ports(q, m, answers, click_add_deltas(m->ip_delta[direction], m->port_delta[direction]));
    const uint32_t after = click_sum(q->icmp, q->icmp_len);
    const uint16_t gone = click_sum_fold(before), come = (uint16_t)~click_sum_fold(after);
    click_apply_delta(q->icmp + 2, click_add_deltas(gone, come));
}

#endif /* CLICK_NAT_H */
