/* IPFragmenter: datagrams longer than ARG_MTU in pieces (RFC 791, 3.2). Handlers: drops, fragments (read). */
static struct {
    uint64_t drops, fragments;
} S;

/* The header of all fragments but the first has just those options that are copied. Returns its length. */
static uint32_t ME(later_header)(uint8_t *to, const uint8_t *ip, uint32_t header_len) {
    uint32_t used = IP_HEADER;
    __builtin_memcpy(to, ip, IP_HEADER);
    for (uint32_t at = IP_HEADER, len; at < header_len && ip[at] != IP_OPTION_END; at += len) {
        len = click_ip_option_len(ip, at, header_len);
        if (len == 0) break;
        if (!(ip[at] & 0x80)) continue;
        __builtin_memcpy(to + used, ip + at, len);
        used += len;
    }
    for (; used % 4; used++) to[used] = IP_OPTION_END;
    to[0] = (uint8_t)(0x40 | used / 4);
    return used;
}

/* Sends bytes `at` to `at + len` of the datagram's payload. */
static void ME(piece)(const click_packet *p, const uint8_t *ip, uint32_t at, uint32_t len, bool last) {
    uint8_t header[60];
    uint32_t header_len = click_ip_header_len(ip);
    if (at == 0) {
        __builtin_memcpy(header, ip, header_len);
    } else {
        header_len = ME(later_header)(header, ip, header_len);
    }
    const uint32_t before = click_get16(ip + IP_FRAGMENT);
    const bool more = !last || (before & IP_MORE_FRAGMENTS);
    click_put16(header + IP_LENGTH, (uint16_t)(header_len + len));
    click_put16(header + IP_FRAGMENT,
                (uint16_t)((((before & IP_OFFSET) + at / 8) & IP_OFFSET) | (more ? IP_MORE_FRAGMENTS : 0)));
    click_ip_set_sum(header);
    click_packet *fragment = click_new(header_len + len);
    if (!fragment) return;
    click_copy_annotations(fragment, p);
    __builtin_memcpy(fragment->data, header, header_len);
    __builtin_memcpy(fragment->data + header_len, ip + click_ip_header_len(ip) + at, len);
    click_set_ip(fragment, fragment->data);
    S.fragments++;
    OUT(0, fragment);
}

static void ME(cut)(click_packet *p, const uint8_t *ip) {
    const uint32_t header_len = click_ip_header_len(ip), total = click_ip_payload_len(p, ip);
    const uint32_t step = (ARG_MTU - header_len) & ~7u;
    for (uint32_t at = 0; at < total; at += step) {
        const uint32_t len = total - at < step ? total - at : step;
        ME(piece)(p, ip, at, len, at + len == total);
    }
    click_end(p);
}

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    const uint8_t *ip = click_ip(p);
    if (!ip) {
        click_drop(p);
    } else if (click_ip_len(p, ip) <= ARG_MTU) {
        OUT(0, p);
    } else if (ARG_HONOR_DF && (click_get16(ip + IP_FRAGMENT) & IP_DONT_FRAGMENT)) {
        S.drops++;
        OUT(1, p);
    } else {
        ME(cut)(p, ip);
    }
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }
static void ME(read_fragments)(click_text *out) { click_text_unsigned(out, S.fragments); }
