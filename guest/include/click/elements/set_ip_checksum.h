/* SetIPChecksum: the checksum of the IP header. */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    click_ip_set_sum(ip);
    return p;
}
