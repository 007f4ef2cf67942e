/* UDPIPEncap: UDP and IP headers in front; HEADER is the latter without what differs from packet to packet.
 * Handlers: src, sport, dst, dport (read). */
static struct {
    uint16_t id;
} S;

static click_packet *ME(action)(click_packet *p) {
    const uint32_t to = p->dst_ip;
    uint8_t *ip = click_unstrip(p, IP_HEADER + UDP_HEADER);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    __builtin_memcpy(ip, HEADER, IP_HEADER);
    click_put16(ip + IP_LENGTH, (uint16_t)p->len);
    click_put16(ip + IP_ID, S.id++);
    if (TO_ANNOTATION) click_put_raw32(ip + IP_DST, to);
    click_ip_set_sum(ip);
    click_set_ip(p, ip);
    p->dst_ip = click_raw32(ip + IP_DST);
    uint8_t *udp = p->transport;
    const uint32_t len = p->len - IP_HEADER;
    click_put16(udp, ARG_SPORT);
    click_put16(udp + 2, ARG_DPORT);
    click_put16(udp + 4, (uint16_t)len);
    click_put_raw16(udp + 6, 0);
    if (ARG_CHECKSUM) click_put_raw16(udp + 6, click_udp_sum(ip, udp, len));
    return p;
}

static void ME(read_src)(click_text *out) { click_text_ip4(out, ARG_SRC); }
static void ME(read_sport)(click_text *out) { click_text_unsigned(out, ARG_SPORT); }
static void ME(read_dport)(click_text *out) { click_text_unsigned(out, ARG_DPORT); }

static void ME(read_dst)(click_text *out) {
#if TO_ANNOTATION
    click_text_string(out, "DST_ANNO");
#else
    click_text_ip4(out, ARG_DST);
#endif
}
