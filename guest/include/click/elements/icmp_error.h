/* ICMPError: the error about a packet, made in the packet's own place (RFC 792; RFC 1812, 4.3.2).
 * Handlers: src, mtu, pmtu, count (read). */
static struct {
    uint64_t errors;
    uint16_t id;
} S;

#define IS_POINTER (ARG_TYPE == ICMP_PARAMETER && ARG_CODE == 0)

/* What errors must not be about: RFC 1812, 4.3.2.7. */
static bool ME(may_answer)(const click_packet *p, const uint8_t *ip) {
    const uint32_t source = click_raw32(ip + IP_SRC), target = click_raw32(ip + IP_DST);
    if (p->type == CLICK_BROADCAST || p->type == CLICK_MULTICAST) return false;
    if (!click_is_host(source) || target == 0xffffffffu || (target & 0xe0) == 0xe0) return false;
    if (ME(is_bad)(source) || ME(is_bad)(target) || !click_ip_is_first(ip)) return false;
    if (ip[IP_PROTOCOL] != IP_ICMP) return true;
    if (click_ip_payload_len(p, ip) < 1) return false;
    const uint8_t type = ip[click_ip_header_len(ip)];
    return type != 3 && type != 4 && type != 5 && type != 11 && type != 12;
}

/* The source route that the packet has come by, of which `route[2]` says how far; NULL when there is none. */
static const uint8_t *ME(source_route)(const uint8_t *ip) {
    const uint32_t header_len = click_ip_header_len(ip);
    for (uint32_t at = IP_HEADER, len; at < header_len && ip[at] != IP_OPTION_END; at += len) {
        len = click_ip_option_len(ip, at, header_len);
        if (len == 0) return NULL;
        if (ip[at] != IP_OPTION_LOOSE_ROUTE && ip[at] != IP_OPTION_STRICT_ROUTE) continue;
        const uint8_t *route = ip + at;
        return len >= 3 && route[2] >= 4 && route[2] % 4 == 0 && route[2] <= len + 1 ? route : NULL;
    }
    return NULL;
}

/* The same route the other way, as options of whole words. Returns their length. */
static uint32_t ME(way_back)(uint8_t *options, const uint8_t *route) {
    const uint32_t len = route[2] - 1u;
    if (len < 4) return 0;
    options[0] = route[0];
    options[1] = (uint8_t)len;
    options[2] = 4;
    for (uint32_t at = 3; at < len; at += 4) __builtin_memcpy(options + at, route + len - at - 1, 4);
    options[len] = IP_OPTION_END;
    return len + 1;
}

static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (!ip || !ME(may_answer)(p, ip)) {
        click_drop(p);
        return NULL;
    }
    const uint32_t to = click_raw32(ip + IP_SRC), gateway = p->dst_ip;
    uint8_t options[40];
    uint32_t options_len = 0;
    const uint8_t *route = ME(source_route)(ip);
    if (route && ARG_TYPE == ICMP_REDIRECT) {
        click_drop(p);
        return NULL;
    }
    if (route && !(IS_POINTER && route <= ip + p->problem && ip + p->problem < route + route[1]))
        options_len = ME(way_back)(options, route);
    const uint32_t header_len = IP_HEADER + options_len, most = ARG_MTU - header_len - ICMP_HEADER;
    const uint32_t len = click_ip_len(p, ip);
    click_strip(p, (uint32_t)(ip - p->data));
    click_take(p, p->len - (len < most ? len : most));
    uint8_t *header = click_unstrip(p, header_len + ICMP_HEADER);
    if (!header) {
        click_drop(p);
        return NULL;
    }
    __builtin_memset(header, 0, header_len + ICMP_HEADER);
    header[0] = (uint8_t)(0x40 | header_len / 4);
    click_put16(header + IP_LENGTH, (uint16_t)p->len);
    click_put16(header + IP_ID, ++S.id);
    header[IP_TTL] = 255;
    header[IP_PROTOCOL] = IP_ICMP;
    click_put_raw32(header + IP_SRC, ARG_SRC);
    click_put_raw32(header + IP_DST, to);
    __builtin_memcpy(header + IP_HEADER, options, options_len);
    click_ip_set_sum(header);
    uint8_t *icmp = header + header_len;
    icmp[0] = ARG_TYPE;
    icmp[1] = ARG_CODE;
    if (IS_POINTER) icmp[4] = p->problem;
    if (ARG_TYPE == ICMP_REDIRECT) click_put_raw32(icmp + 4, gateway);
    if (ARG_TYPE == ICMP_UNREACHABLE && ARG_CODE == 4) click_put16(icmp + 6, ARG_PMTU);
    click_put_raw16(icmp + 2, click_sum_fold(click_sum(icmp, p->len - header_len)));
    click_set_ip(p, header);
    p->dst_ip = to;
    p->fix_src = ARG_USE_FIX_ANNO;
    p->problem = 0;
    S.errors++;
    return p;
}

static void ME(read_src)(click_text *out) { click_text_ip4(out, ARG_SRC); }
static void ME(read_mtu)(click_text *out) { click_text_unsigned(out, ARG_MTU); }
static void ME(read_pmtu)(click_text *out) { click_text_unsigned(out, ARG_PMTU); }
static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.errors); }
#undef IS_POINTER
