/* ICMPPingResponder: an echo request becomes its reply, in place. Handlers: count (read), reset_counts (write). */
static struct {
    uint64_t answers;
} S;

static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    uint8_t *icmp = ip ? click_ip_payload(ip) : NULL;
    if (!ip || ip[IP_PROTOCOL] != IP_ICMP || click_ip_payload_len(p, ip) < ICMP_HEADER || !click_ip_is_first(ip) ||
        icmp[0] != ICMP_ECHO) {
        OUT(1, p);
        return NULL;
    }
    const uint32_t to = click_raw32(ip + IP_SRC);
    click_put_raw32(ip + IP_SRC, click_raw32(ip + IP_DST));
    click_put_raw32(ip + IP_DST, to);
    click_ip_put16(ip, IP_FRAGMENT, 0);
    click_ip_put16(ip, IP_TTL, (uint16_t)((click_raw16(ip + IP_TTL) & 0xff00) | 255));
    const uint16_t before = click_raw16(icmp);
    click_put_raw16(icmp, 0);
    click_put_raw16(icmp + 2, click_checksum_update16(click_raw16(icmp + 2), before, 0));
    p->dst_ip = to;
    p->paint = 0;
    S.answers++;
    return p;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.answers); }

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.answers = 0;
    return true;
}
