/* IPAddrRewriter: a mapping for each host. Its forward key has the source address alone, that of answers the destination.
 * Handlers: table_size, size, capacity, mapping_failures, table (read). */
static void ME(rewrite)(click_mapping *m, uint32_t direction, click_packet *p, uint8_t *ip) {
    m->used_at = click_now;
    const uint32_t field = direction == 0 ? IP_SRC : IP_DST;
    click_put_raw32(ip + field, direction == 0 ? m->flow[1].daddr : m->flow[0].saddr);
    click_apply_delta(ip + IP_SUM, m->ip_delta[direction]);
    if (click_ip_is_first(ip)) {
        uint8_t *transport = click_ip_payload(ip);
        const uint32_t len = click_ip_payload_len(p, ip);
        if (ip[IP_PROTOCOL] == IP_TCP && len >= 18) click_apply_delta(transport + 16, m->ip_delta[direction]);
        if (ip[IP_PROTOCOL] == IP_UDP && len >= UDP_HEADER && click_raw16(transport + 6)) {
            click_apply_delta(transport + 6, m->ip_delta[direction]);
            if (click_raw16(transport + 6) == 0) click_put_raw16(transport + 6, 0xffff);
        }
    }
    if (direction == 1) p->dst_ip = m->flow[0].saddr;
}

#include <click/rewriter.h>

static void ME(push)(uint32_t port, click_packet *p) {
    uint8_t *ip = click_ip(p);
    uint32_t key = 0;
    if (!ME(nat).seed) ME(nat).seed = click_now | 1;
    if (ip) {
        const click_flow from = {click_raw32(ip + IP_SRC), 0, 0, 0}, to = {0, click_raw32(ip + IP_DST), 0, 0};
        if (from.saddr) key = click_nat_find(&ME(nat), &from, 0);
        if (!key && to.daddr) key = click_nat_find(&ME(nat), &to, 0);
        if (!key && from.saddr && ME(pass)(port) < 0) {
            key = ME(create)(port, &from, 0);
            ME(nat).failures += !key;
        }
    }
    ME(hand_on)(port, key, p, ip);
}

static void ME(read_table)(click_text *out) { click_text_mappings(out, &ME(nat), 0); }
