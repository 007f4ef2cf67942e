/* ToDevice, ToRing: sends packets out of the guest; SEND(p) says where to. One that arrived in this burst leaves from where it
 * lies, without a copy. Behind a queue it pulls, at the end of each burst, until there is nothing more.
 * Handlers: count, refused (read), reset (write). */
static struct {
    uint64_t sent, refused;
} S;

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    const bool sent = SEND(p);
    S.sent += sent;
    S.refused += !sent;
}

static bool ME(task)(void) {
    click_packet *p = IN(0);
    if (p) ME(push)(0, p);
    return p != NULL;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.sent); }
static void ME(read_refused)(click_text *out) { click_text_unsigned(out, S.refused); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.sent = S.refused = 0;
    return true;
}
