/* IPOutputCombo: what a packet goes through on its way out of a router. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    uint8_t *ip = click_ip(p);
    if (!ip || p->type == CLICK_BROADCAST || p->type == CLICK_MULTICAST) {
        click_drop(p);
        return;
    }
    if (p->paint == ARG_COLOR) {
        click_packet *copy = click_copy(p);
        if (copy) OUT(1, copy);
    }
    if (click_ip_header_len(ip) > IP_HEADER) {
        const uint32_t wrong = click_ip_options(ip, ARG_IPADDR, ME(is_mine));
        if (wrong) {
            p->problem = (uint8_t)wrong;
            OUT(2, p);
            return;
        }
    }
    if (p->fix_src) {
        p->fix_src = 0;
        click_ip_put32(ip, IP_SRC, ARG_IPADDR);
    }
    if (ip[IP_TTL] <= 1) {
        OUT(3, p);
        return;
    }
    click_ip_put16(ip, IP_TTL, (uint16_t)(click_raw16(ip + IP_TTL) - 1));
    OUT(p->len > ARG_MTU ? 4 : 0, p);
}
