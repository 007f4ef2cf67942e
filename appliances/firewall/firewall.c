/* firewall: an ordered list of allow and deny rules, with replies let back in. See README.md.
 *
 * A message of an open flow costs one hash lookup. Any other goes through the rules (rules.h); an allowed one from the
 * client's side opens a flow. Because rules look at nothing but the addresses, protocol and ports that make up a flow,
 * the table never changes a forward verdict: it spares the rules, and it lets replies in.
 */
#include <edgeos.h>

#include "../include/packet.h"
#include "rules.h"
#include "table.h"

#define SECOND_NS 1000000000ull
#define FLOW_SETS 256    /* 1,024 flows */
#define FRAGMENT_SETS 16 /* 64 packets in pieces */

EDGEOS_COUNTER(allowed);
EDGEOS_COUNTER(established);
EDGEOS_COUNTER(denied);
EDGEOS_COUNTER(malformed);

enum outcome { OUTCOME_ALLOWED, OUTCOME_ESTABLISHED, OUTCOME_DENIED, OUTCOME_MALFORMED };
enum { FLOW_FIN_FORWARD = 1, FLOW_FIN_REVERSE = 2, FLOW_CLOSED = 3 };

static struct rule_list rules;
TABLE(flows, FLOW_SETS);
TABLE(fragments, FRAGMENT_SETS);

void edgeos_init(const uint8_t *config, uint32_t len) { rules_compile(&rules, config, len); }

static bool older_than(uint64_t seen_ns, uint64_t now_ns, uint64_t seconds) {
    return now_ns > seen_ns && now_ns - seen_ns > seconds * SECOND_NS;
}

/* Idle times: RFC 5382 (TCP, 2 h 4 min), RFC 4787 (UDP, 5 min). A closed connection stays for a moment, so that the
 * last acknowledgements and what must be sent again still pass. */
static bool flow_expired(const struct table_entry *flow, uint16_t proto, uint64_t now_ns) {
    if (proto != PROTO_TCP && proto != PROTO_SCTP) return older_than(flow->seen_ns, now_ns, 300);
    return older_than(flow->seen_ns, now_ns, flow->state == FLOW_CLOSED ? 10 : 7440);
}

static void flow_note(struct table_entry *flow, const struct packet *p, bool reverse, uint64_t now_ns) {
    if ((p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && !reverse) flow->state = 0; /* the ports are used anew */
    if (flow->state == FLOW_CLOSED) return;                                            /* its last seconds run */
    flow->seen_ns = now_ns;
    if (p->tcp_flags & TCP_FIN) flow->state |= reverse ? FLOW_FIN_REVERSE : FLOW_FIN_FORWARD;
    if (p->tcp_flags & TCP_RST) flow->state = FLOW_CLOSED;
}

/* The question that an ICMP message of this type asks or answers; 0 = neither. */
static uint32_t icmp_question(const struct packet *p, bool answer) {
    if (p->kind == PACKET_IP6) return p->icmp_type == (answer ? 129 : 128) ? 128 : 0;
    if (p->icmp_type == (answer ? 0 : 8)) return 8;
    return p->icmp_type == (answer ? 14 : 13) ? 13 : 0;
}

/* The flow that a packet belongs to, seen from the client; false when it can belong to none. Of ICMP, only questions
 * from the client's side make a flow, and only answers belong to it from the other. */
static bool flow_key(struct table_key *key, const struct packet *p, bool reverse) {
    uint32_t near_port = reverse ? p->dst_port : p->src_port, far_port = reverse ? p->src_port : p->dst_port;
    if (p->icmp) {
        far_port = icmp_question(p, reverse);
        near_port = packet_u16(p->transport + 4);
        if (far_port == 0) return false;
    }
    key->near = reverse ? p->dst : p->src;
    key->far = reverse ? p->src : p->dst;
    key->what = (uint64_t)p->proto << 32 | near_port << 16 | far_port;
    key->where = (uint64_t)p->kind << 32 | p->vlans;
    return true;
}

/* Whether an ICMP error answers a packet of an open flow: one that went the other way, from where the error goes to. */
static bool error_belongs_to_flow(const struct packet *error, bool reverse, uint64_t now_ns) {
    struct packet quoted;
    struct table_key key;
    if (!packet_parse_quoted(&quoted, error) || quoted.fragment == PACKET_LATER) return false;
    quoted.vlans = error->vlans;
    if (!packet_address_equal(quoted.src, error->dst) || !flow_key(&key, &quoted, !reverse)) return false;
    const struct table_entry *flow = table_find(&flows, &key, table_hash(&key));
    return flow && !flow_expired(flow, quoted.proto, now_ns);
}

static enum outcome by_rules(const struct packet *p, uint32_t class) {
    return rules_allow(&rules, p, class) ? OUTCOME_ALLOWED : OUTCOME_DENIED;
}

static enum outcome by_flow(const struct packet *p, uint32_t class, bool reverse, uint64_t now_ns) {
    struct table_key key;
    if (packet_is_icmp_error(p) && error_belongs_to_flow(p, reverse, now_ns)) return OUTCOME_ESTABLISHED;
    if (!flow_key(&key, p, reverse)) return by_rules(p, class);

    uint64_t hash = table_hash(&key);
    struct table_entry *flow = table_find(&flows, &key, hash);
    if (flow && !flow_expired(flow, p->proto, now_ns)) {
        flow_note(flow, p, reverse, now_ns);
        return OUTCOME_ESTABLISHED;
    }
    if (by_rules(p, class) == OUTCOME_DENIED) return OUTCOME_DENIED;
    if (!reverse && !(p->tcp_flags & TCP_RST)) {
        if (!flow) flow = table_add(&flows, &key, hash);
        flow->state = 0;
        flow_note(flow, p, reverse, now_ns);
    }
    return OUTCOME_ALLOWED;
}

/* IPv6 tells packets apart without the protocol, which may differ from fragment to fragment (RFC 8200, 4.5). */
static void fragment_key(struct table_key *key, const struct packet *p, bool reverse) {
    uint64_t proto = p->kind == PACKET_IP6 ? 0 : p->proto;
    key->near = p->src;
    key->far = p->dst;
    key->what = proto << 32 | p->fragment_id;
    key->where = (uint64_t)reverse << 40 | (uint64_t)p->kind << 32 | p->vlans;
}

static void remember_first_fragment(const struct packet *p, bool reverse, uint64_t now_ns, enum outcome outcome) {
    struct table_key key;
    fragment_key(&key, p, reverse);
    uint64_t hash = table_hash(&key);
    struct table_entry *first = table_find(&fragments, &key, hash);
    if (!first) first = table_add(&fragments, &key, hash);
    first->seen_ns = now_ns;
    first->header_end = p->header_end;
    first->state = (uint8_t)outcome;
}

/* As its first fragment fared. One that would overwrite the headers that were judged is a forgery (RFC 3128). */
static enum outcome by_first_fragment(const struct packet *p, uint32_t class, bool reverse, uint64_t now_ns) {
    struct table_key key;
    fragment_key(&key, p, reverse);
    const struct table_entry *first = table_find(&fragments, &key, table_hash(&key));
    if (!first || older_than(first->seen_ns, now_ns, 30)) return by_rules(p, class);
    return p->fragment_offset < first->header_end ? OUTCOME_MALFORMED : (enum outcome)first->state;
}

static enum outcome judge(const edgeos_message *m) {
    struct packet p;
    packet_parse(&p, m->data, m->len);
    if (p.kind == PACKET_MALFORMED) return OUTCOME_MALFORMED;

    uint32_t class = rules_class(&p);
    bool reverse = m->direction != EDGEOS_FORWARD;
    if (class & RULES_WITHOUT_FLOWS) return by_rules(&p, class);
    if (p.fragment == PACKET_LATER) return by_first_fragment(&p, class, reverse, m->time_ns);
    enum outcome outcome = by_flow(&p, class, reverse, m->time_ns);
    if (p.fragment == PACKET_FIRST) remember_first_fragment(&p, reverse, m->time_ns, outcome);
    return outcome;
}

int edgeos_handle(edgeos_message *m) {
    switch (judge(m)) {
    case OUTCOME_ALLOWED: allowed.value++; return 0;
    case OUTCOME_ESTABLISHED: established.value++; return 0;
    case OUTCOME_MALFORMED: malformed.value++; return EDGEOS_DROP;
    case OUTCOME_DENIED: break;
    }
    denied.value++;
    return EDGEOS_DROP;
}
