/* GetIPAddress: an address of the packet becomes its destination annotation. FIELD: of the IP header, 0: at ARG_OFFSET. */
static click_packet *ME(action)(click_packet *p) {
#ifdef ARG_OFFSET
    if (p->len >= ARG_OFFSET + 4) p->dst_ip = click_raw32(p->data + ARG_OFFSET);
#else
    const uint8_t *ip = click_ip(p);
    if (ip) p->dst_ip = click_raw32(ip + FIELD);
#endif
    return p;
}
