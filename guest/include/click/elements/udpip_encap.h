/* UDPIPEncap: UDP and IP headers in front. Handlers: src, sport, dst, dport (read). */
#include <click/ip_front.h>

static click_packet *ME(action)(click_packet *p) {
    if (!ME(put_ip)(p, UDP_HEADER)) return NULL;
    uint8_t *udp = p->transport;
    const uint32_t len = p->len - IP_HEADER;
    click_put16(udp, ARG_SPORT);
    click_put16(udp + 2, ARG_DPORT);
    click_put16(udp + 4, (uint16_t)len);
    click_put_raw16(udp + 6, 0);
    if (ARG_CHECKSUM) click_put_raw16(udp + 6, click_udp_sum(p->network, udp, len));
    return p;
}

static void ME(read_sport)(click_text *out) { click_text_unsigned(out, ARG_SPORT); }
static void ME(read_dport)(click_text *out) { click_text_unsigned(out, ARG_DPORT); }
