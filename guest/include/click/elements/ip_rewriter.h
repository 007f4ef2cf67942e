/* IPRewriter, TCPRewriter, UDPRewriter: packets with a mapping are rewritten by it; for others ME(create) makes one, or
 * ME(pass) names the output. TAKES(protocol): whether it is one of those that are translated.
 * Handlers: table_size, size, capacity, mapping_failures; table, or tcp_table and udp_table (read). */
static void ME(rewrite)(click_mapping *m, uint32_t direction, click_packet *p, uint8_t *ip) {
    click_rewrite(m, direction, p, ip, ANNOTATE);
}

#include <click/rewriter.h>

static void ME(push)(uint32_t port, click_packet *p) {
    uint8_t *ip = click_ip(p);
    click_flow flow;
    uint32_t key = 0;
    if (!ME(nat).seed) ME(nat).seed = click_now | 1;
    if (ip && TAKES(ip[IP_PROTOCOL]) && click_flow_of(p, ip, &flow)) {
        key = click_nat_find(&ME(nat), &flow, ip[IP_PROTOCOL]);
        if (!key && ME(pass)(port) < 0) {
            key = ME(create)(port, &flow, ip[IP_PROTOCOL]);
            ME(nat).failures += !key;
        }
    }
    ME(hand_on)(port, key, p, ip);
}

__attribute__((unused)) static void ME(read_table)(click_text *out) { click_text_mappings(out, &ME(nat), 0); }
__attribute__((unused)) static void ME(read_tcp_table)(click_text *out) { click_text_mappings(out, &ME(nat), IP_TCP); }
__attribute__((unused)) static void ME(read_udp_table)(click_text *out) { click_text_mappings(out, &ME(nat), IP_UDP); }
