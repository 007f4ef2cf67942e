/* switch.h: what elements have that count packets and can be switched off, included by their templates behind their state:
 * the handlers count, active (read), active (write). */
static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.packets); }
static void ME(read_active)(click_text *out) { click_text_bool(out, !S.stopped); }

static bool ME(write_active)(const char *text, uint32_t len) {
    bool active;
    if (!click_parse_bool(text, len, &active)) return false;
    S.stopped = !active;
    return true;
}
