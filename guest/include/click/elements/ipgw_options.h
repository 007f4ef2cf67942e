/* IPGWOptions: record route and timestamp. Handler: drops (read). */
static struct {
    uint64_t drops;
} S;

static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    if (click_ip_header_len(ip) == IP_HEADER) return p;
    const uint32_t wrong = click_ip_options(ip, ARG_MYADDR, ME(is_mine));
    if (!wrong) return p;
    S.drops++;
    p->problem = (uint8_t)wrong;
    OUT(1, p);
    return NULL;
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }
