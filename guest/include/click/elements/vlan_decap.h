/* VLANDecap: takes a VLAN tag out, and keeps it as annotation. */
static click_packet *ME(action)(click_packet *p) {
    const bool tagged = p->len >= ETHER_HEADER + 4 && click_get16(p->data + ETHER_TYPE) == ARG_ETHERTYPE;
    if (ARG_ANNO) p->vlan_tci = tagged ? click_get16(p->data + ETHER_HEADER) : 0;
    if (tagged) {
        __builtin_memmove(p->data + 4, p->data, 2 * ETHER_ADDRESS);
        click_strip(p, 4);
    }
    return p;
}
