/* FixIPSrc: this router's address where the annotation asks for it. */
static click_packet *ME(action)(click_packet *p) {
    if (!p->fix_src) return p;
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    p->fix_src = 0;
    click_ip_put32(ip, IP_SRC, ARG_IPADDR);
    return p;
}
