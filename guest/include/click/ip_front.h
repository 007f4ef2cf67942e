/* ip_front.h: what elements have that put an IP header in front, included by their templates for each instance: their state,
 * ME(put_ip), and the handlers src, dst (read). HEADER is the header without what differs from packet to packet. */
static struct {
    uint16_t id;
} S;

/* With room for `more` bytes behind the header; drops the packet and says false if there is none. */
static bool ME(put_ip)(click_packet *p, uint32_t more) {
    const uint32_t to = p->dst_ip;
    uint8_t *ip = click_unstrip(p, IP_HEADER + more);
    if (!ip) {
        click_drop(p);
        return false;
    }
    __builtin_memcpy(ip, HEADER, IP_HEADER);
    click_put16(ip + IP_LENGTH, (uint16_t)p->len);
    click_put16(ip + IP_ID, S.id++);
    if (TO_ANNOTATION) click_put_raw32(ip + IP_DST, to);
    click_ip_set_sum(ip);
    click_set_ip(p, ip);
    p->dst_ip = click_raw32(ip + IP_DST);
    return true;
}

static void ME(read_src)(click_text *out) { click_text_ip4(out, ARG_SRC); }

static void ME(read_dst)(click_text *out) {
#if TO_ANNOTATION
    click_text_string(out, "DST_ANNO");
#else
    click_text_ip4(out, ARG_DST);
#endif
}
