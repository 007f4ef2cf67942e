/* SetTCPChecksum: over all of the segment; what is no whole TCP segment is dropped. */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p), *tcp = ip ? click_ip_payload(ip) : NULL;
    const uint32_t len = ip ? click_ip_payload_len(p, ip) : 0;
    const uint32_t offset = len >= TCP_HEADER ? (tcp[12] >> 4) * 4u : 0;
    const bool fits = offset >= TCP_HEADER && offset <= len;
    if (len < TCP_HEADER || click_ip_is_fragment(ip) || (!fits && !ARG_FIXOFF)) {
        click_drop(p);
        return NULL;
    }
    if (!fits) tcp[12] = (uint8_t)((tcp[12] & 15) | (offset < TCP_HEADER ? TCP_HEADER : len & ~3u) / 4 << 4);
    click_put_raw16(tcp + 16, 0);
    click_put_raw16(tcp + 16, click_transport_sum(ip, tcp, len));
    return p;
}
