/* SetIPDSCP: the upper six bits of the second byte. */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    click_ip_put16(ip, 0, (uint16_t)((click_raw16(ip) & 0x03ff) | ARG_DSCP << 10));
    return p;
}
