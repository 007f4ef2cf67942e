/* IPPrint: the last IP packet in a line, since a guest has nowhere to print to: its headers are kept, and the line is made
 * when it is asked for. SHOWN_MAX bytes of it are kept, IN_HEX or as text, from the payload on if PAYLOAD_ALONE.
 * Handlers: last, count, active (read); active (write). */
static struct {
    uint64_t packets, time_ns;
    uint32_t aggregate, shown, transport_len;
    bool stopped;
    uint8_t paint, ip[IP_HEADER], transport[TCP_HEADER], data[SHOWN_MAX + 1];
} S = {.stopped = !ARG_ACTIVE};

static click_packet *ME(action)(click_packet *p) {
    uint8_t *ip = click_ip(p);
    if (S.stopped || !ip) return p;
    const uint32_t payload = click_ip_payload_len(p, ip), whole = click_ip_len(p, ip);
    S.packets++;
    S.time_ns = p->time_ns;
    S.aggregate = p->aggregate;
    S.paint = p->paint;
    __builtin_memcpy(S.ip, ip, IP_HEADER);
    S.transport_len = !click_ip_is_first(ip) ? 0 : payload < TCP_HEADER ? payload : TCP_HEADER;
    __builtin_memcpy(S.transport, click_ip_payload(ip), S.transport_len);
    const uint32_t there = PAYLOAD_ALONE ? payload : whole;
    S.shown = there < SHOWN_MAX ? there : SHOWN_MAX;
    __builtin_memcpy(S.data, PAYLOAD_ALONE ? click_ip_payload(ip) : ip, S.shown);
    return p;
}

static void ME(text_named)(click_text *out, const char *name, uint32_t value) {
    click_text_string(out, name);
    click_text_unsigned(out, value);
}

static void ME(text_end)(click_text *out, uint32_t address, bool port, uint32_t at) {
    click_text_ip4(out, click_raw32(S.ip + address));
    if (port) ME(text_named)(out, ".", click_get16(S.transport + at));
}

static void ME(text_tcp)(click_text *out) {
    static const char letters[] = "FSRP.UEC";
    click_text_char(out, ' ');
    for (uint32_t i = 0; i < 8; i++) {
        if (S.transport[13] >> i & 1) click_text_char(out, letters[i]);
    }
    ME(text_named)(out, " seq ", click_get32(S.transport + 4));
    ME(text_named)(out, " ack ", click_get32(S.transport + 8));
    ME(text_named)(out, " win ", click_get16(S.transport + 14));
}

static void ME(text_protocol)(click_text *out) {
    const uint8_t protocol = S.ip[IP_PROTOCOL];
    if (protocol == IP_TCP && S.transport_len == TCP_HEADER) {
        click_text_string(out, ": tcp");
        ME(text_tcp)(out);
    } else if (protocol == IP_UDP && S.transport_len >= UDP_HEADER) {
        ME(text_named)(out, ": udp ", click_get16(S.transport + 4));
    } else if (protocol == IP_ICMP && S.transport_len >= 2) {
        ME(text_named)(out, ": icmp type ", S.transport[0]);
        ME(text_named)(out, " code ", S.transport[1]);
    } else {
        ME(text_named)(out, ": protocol ", protocol);
    }
    const uint32_t fragment = click_get16(S.ip + IP_FRAGMENT);
    if (fragment & (IP_MORE_FRAGMENTS | IP_OFFSET)) {
        ME(text_named)(out, " (frag ", click_get16(S.ip + IP_ID));
        ME(text_named)(out, " @", (fragment & IP_OFFSET) * 8);
        click_text_string(out, fragment & IP_MORE_FRAGMENTS ? "+)" : ")");
    }
}

static void ME(read_last)(click_text *out) {
    if (!S.packets) return;
    const bool ports = S.transport_len >= 4 && (S.ip[IP_PROTOCOL] == IP_TCP || S.ip[IP_PROTOCOL] == IP_UDP);
    if (ARG_LABEL_LEN) click_text_bytes(out, ARG_LABEL ": ", ARG_LABEL_LEN + 2);
    if (ARG_PAINT) ME(text_named)(out, "paint ", S.paint);
    if (ARG_PAINT) click_text_string(out, ": ");
    if (ARG_AGGREGATE) ME(text_named)(out, "#", S.aggregate);
    if (ARG_AGGREGATE) click_text_string(out, ": ");
    if (ARG_TIMESTAMP) click_text_decimal(out, S.time_ns, 9);
    if (ARG_TIMESTAMP) click_text_string(out, ": ");
    if (ARG_ID) ME(text_named)(out, "id ", click_get16(S.ip + IP_ID));
    if (ARG_ID) click_text_char(out, ' ');
    if (ARG_TTL) ME(text_named)(out, "ttl ", S.ip[IP_TTL]);
    if (ARG_TTL) click_text_char(out, ' ');
    if (ARG_TOS) ME(text_named)(out, "tos ", S.ip[IP_TOS]);
    if (ARG_TOS) click_text_char(out, ' ');
    if (ARG_LENGTH) ME(text_named)(out, "length ", click_get16(S.ip + IP_LENGTH));
    if (ARG_LENGTH) click_text_char(out, ' ');
    ME(text_end)(out, IP_SRC, ports, 0);
    click_text_string(out, " > ");
    ME(text_end)(out, IP_DST, ports, 2);
    ME(text_protocol)(out);
    for (uint32_t i = 0; i < S.shown; i++) {
        if (i == 0) click_text_char(out, '\n');
        if (IN_HEX) {
            if (i && i % 4 == 0) click_text_char(out, ' ');
            click_text_hex(out, S.data + i, 1);
        } else {
            click_text_char(out, S.data[i] >= 32 && S.data[i] < 127 ? (char)S.data[i] : '.');
        }
    }
}

#include <click/switch.h>
