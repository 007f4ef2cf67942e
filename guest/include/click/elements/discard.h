/* Discard: ends packets. Handlers: count (read), reset_counts (write). */
static struct {
    uint64_t packets;
} S;

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    S.packets++;
    click_drop(p);
}

static bool ME(task)(void) {
    click_packet *p = IN(0);
    if (p) ME(push)(0, p);
    return p != NULL;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.packets); }

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.packets = 0;
    return true;
}
