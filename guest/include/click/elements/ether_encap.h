/* EtherEncap: an Ethernet header in front. Handlers: src, dst, ethertype (read). */
static click_packet *ME(action)(click_packet *p) {
    uint8_t *header = click_unstrip(p, ETHER_HEADER);
    if (!header) {
        click_drop(p);
        return NULL;
    }
    click_put_ether(header, ARG_DST, ARG_SRC, ARG_ETHERTYPE);
    return p;
}

static void ME(read_src)(click_text *out) { click_text_ether(out, (const uint8_t *)ARG_SRC); }
static void ME(read_dst)(click_text *out) { click_text_ether(out, (const uint8_t *)ARG_DST); }
static void ME(read_ethertype)(click_text *out) { click_text_unsigned(out, ARG_ETHERTYPE); }
