/* Print: keeps the start of the last packet, since a guest has nowhere to print to.
 * Handlers: last, count, active (read); active (write). */
#define SHOWN (ARG_MAXLENGTH < 0 ? 1500u : (uint32_t)ARG_MAXLENGTH)
static struct {
    uint64_t packets, time_ns;
    uint32_t len;
    bool stopped;
    uint8_t data[ARG_MAXLENGTH < 0 ? 1500 : ARG_MAXLENGTH + 1];
} S = {.stopped = !ARG_ACTIVE};

static click_packet *ME(action)(click_packet *p) {
    if (S.stopped) return p;
    S.packets++;
    S.time_ns = p->time_ns;
    S.len = p->len;
    __builtin_memcpy(S.data, p->data, p->len < SHOWN ? p->len : SHOWN);
    return p;
}

static void ME(read_last)(click_text *out) {
    if (!S.packets) return;
    if (ARG_LABEL_LEN) click_text_bytes(out, ARG_LABEL ": ", ARG_LABEL_LEN + 2);
    if (ARG_TIMESTAMP) {
        click_text_decimal(out, S.time_ns, 9);
        click_text_string(out, ": ");
    }
    click_text_unsigned(out, S.len);
    click_text_string(out, " | ");
    for (uint32_t i = 0; i < S.len && i < SHOWN; i++) {
        if (i && i % 4 == 0) click_text_char(out, ' ');
        click_text_hex(out, S.data + i, 1);
    }
}

#include <click/switch.h>
#undef SHOWN
