/* SetUDPChecksum: over the bytes that the UDP length says. */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p), *udp = ip ? click_ip_payload(ip) : NULL;
    const uint32_t there = ip ? click_ip_payload_len(p, ip) : 0;
    const uint32_t len = there >= UDP_HEADER ? click_get16(udp + 4) : 0;
    if (len < UDP_HEADER || len > there || click_ip_is_fragment(ip)) {
        OUT(1, p);
        return NULL;
    }
    click_put_raw16(udp + 6, 0);
    click_put_raw16(udp + 6, click_udp_sum(ip, udp, len));
    return p;
}
