/* EtherVLANEncap: an Ethernet header with a VLAN tag in front. TCI is the tag but for the priority PCP; NATIVE the VLAN
 * whose packets get none. Handlers: src, dst, ethertype (read). */
static click_packet *ME(action)(click_packet *p) {
    const uint32_t tci = TCI | PCP;
    const bool tagged = (tci & 0xfff) != NATIVE;
    uint8_t *header = click_unstrip(p, tagged ? ETHER_HEADER + 4 : ETHER_HEADER);
    if (!header) {
        click_drop(p);
        return NULL;
    }
    click_put_ether(header, ARG_DST, ARG_SRC, tagged ? ETHER_VLAN : ARG_ETHERTYPE);
    if (tagged) {
        click_put16(header + ETHER_HEADER, (uint16_t)tci);
        click_put16(header + ETHER_HEADER + 2, ARG_ETHERTYPE);
    }
    return p;
}

static void ME(read_src)(click_text *out) { click_text_ether(out, (const uint8_t *)ARG_SRC); }
static void ME(read_dst)(click_text *out) { click_text_ether(out, (const uint8_t *)ARG_DST); }
static void ME(read_ethertype)(click_text *out) { click_text_unsigned(out, ARG_ETHERTYPE); }
