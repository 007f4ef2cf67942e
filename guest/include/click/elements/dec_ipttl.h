/* DecIPTTL: a hop less to live. Handler: drops (read). */
static struct {
    uint64_t drops;
} S;

static click_packet *ME(action)(click_packet *p) {
    if (!ARG_ACTIVE) return p;
    uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
        return NULL;
    }
    if (!ARG_MULTICAST && (ip[IP_DST] & 0xf0) == 0xe0) return p;
    if (ip[IP_TTL] <= 1) {
        S.drops++;
        OUT(1, p);
        return NULL;
    }
    click_ip_put16(ip, IP_TTL, (uint16_t)(click_raw16(ip + IP_TTL) - 1)); /* the first of the two bytes, as they lie */
    return p;
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }
