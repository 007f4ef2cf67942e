/* IPMirror: the way back. Checksums stay right, since the words that they cover only change places. */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    const uint32_t source = click_raw32(ip + IP_SRC);
    click_put_raw32(ip + IP_SRC, click_raw32(ip + IP_DST));
    click_put_raw32(ip + IP_DST, source);
    if (ARG_DST_ANNO) p->dst_ip = source;
    uint8_t *transport = click_ip_payload(ip);
    const uint32_t len = click_ip_payload_len(p, ip);
    const bool tcp = ip[IP_PROTOCOL] == IP_TCP;
    if (!click_ip_is_first(ip) || !(tcp || ip[IP_PROTOCOL] == IP_UDP)) return p;
    if (len >= 4) click_put_raw32(transport, click_raw32(transport) << 16 | click_raw32(transport) >> 16);
    if (tcp && len >= TCP_HEADER) {
        const uint32_t sequence = click_raw32(transport + 4);
        click_put_raw32(transport + 4, click_raw32(transport + 8));
        click_put_raw32(transport + 8, sequence);
    }
    return p;
}
