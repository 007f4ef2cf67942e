/* SetIPAddress: the destination annotation. Handler: addr (read). */
static click_packet *ME(action)(click_packet *p) {
    p->dst_ip = ARG_ADDR;
    return p;
}

static void ME(read_addr)(click_text *out) { click_text_ip4(out, ARG_ADDR); }
