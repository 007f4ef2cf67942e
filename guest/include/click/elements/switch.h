/* Switch: one output for all packets, -1 for none. Handler: switch (read, write). */
static struct {
    int32_t moved; /* from ARG_OUTPUT, so that the state starts as zero */
} S;

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    OUT((uint32_t)((int32_t)ARG_OUTPUT + S.moved), p);
}

static void ME(read_switch)(click_text *out) { click_text_signed(out, (int32_t)ARG_OUTPUT + S.moved); }

static bool ME(write_switch)(const char *text, uint32_t len) {
    int64_t output;
    if (!click_parse_signed(text, len, &output) || output < -1 || output >= (int64_t)N_OUTPUTS) return false;
    S.moved = (int32_t)output - (int32_t)ARG_OUTPUT;
    return true;
}
