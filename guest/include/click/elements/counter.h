/* Counter: counts packets and bytes. Handlers: count, byte_count (read), reset (write). */
static struct {
    uint64_t packets, bytes;
} S;

static click_packet *ME(action)(click_packet *p) {
    S.packets++;
    S.bytes += p->len;
    return p;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.packets); }
static void ME(read_byte_count)(click_text *out) { click_text_unsigned(out, S.bytes); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.packets = S.bytes = 0;
    return true;
}
