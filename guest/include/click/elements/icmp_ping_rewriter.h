/* ICMPPingRewriter: the identifier of a request counts as its source port, that of an answer as its destination port.
 * Handlers: table_size, size, capacity, mapping_failures, table (read). */
static bool ME(flow_of)(const click_packet *p, uint8_t *ip, click_flow *flow) {
    const uint8_t *icmp = click_ip_payload(ip);
    if (ip[IP_PROTOCOL] != IP_ICMP || !click_ip_is_first(ip) || click_ip_payload_len(p, ip) < ICMP_HEADER) return false;
    if (icmp[0] != ICMP_ECHO && icmp[0] != ICMP_ECHO_REPLY) return false;
    const uint16_t id = click_raw16(icmp + 4);
    *flow = (click_flow){click_raw32(ip + IP_SRC), click_raw32(ip + IP_DST), icmp[0] == ICMP_ECHO ? id : 0,
                         icmp[0] == ICMP_ECHO ? 0 : id};
    return true;
}

static void ME(rewrite)(click_mapping *m, uint32_t direction, click_packet *p, uint8_t *ip) {
    const click_flow to = click_flow_reversed(m->flow[1 - direction]);
    uint8_t *icmp = click_ip_payload(ip);
    m->used_at = click_now;
    click_put_raw32(ip + IP_SRC, to.saddr);
    click_put_raw32(ip + IP_DST, to.daddr);
    click_apply_delta(ip + IP_SUM, m->ip_delta[direction]);
    click_put_raw16(icmp + 4, direction == 0 ? to.sport : to.dport);
    click_apply_delta(icmp + 2, m->port_delta[direction]);
    if (ANNOTATE) p->dst_ip = to.daddr;
}

#include <click/rewriter.h>

static void ME(push)(uint32_t port, click_packet *p) {
    uint8_t *ip = click_ip(p);
    click_flow flow;
    uint32_t key = 0;
    if (!ME(nat).seed) ME(nat).seed = click_now | 1;
    if (ip && ME(flow_of)(p, ip, &flow)) {
        const bool request = click_ip_payload(ip)[0] == ICMP_ECHO;
        key = click_nat_find(&ME(nat), &flow, IP_ICMP);
        if (!key && request && ME(pass)(port) < 0) {
            key = ME(create)(port, &flow, IP_ICMP);
            ME(nat).failures += !key;
        }
        if (key && ((key - 1) & 1) == request) key = 0; /* an identifier of 0 would fit both ways */
    }
    ME(hand_on)(port, key, p, ip);
}

static void ME(read_table)(click_text *out) { click_text_mappings(out, &ME(nat), 0); }
