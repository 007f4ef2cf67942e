/* CheckIPHeader, CheckIPHeader2: good IP headers pass. Handlers: drops, drop_details (read), reset_counts (write). */
static struct {
    uint64_t drops, details[ARG_DETAILS ? IP_PROBLEMS : 1];
} S;

static click_packet *ME(action)(click_packet *p) {
    const uint32_t problem = click_check_ip(p, ARG_OFFSET, ARG_CHECKSUM, ME(bad_source));
    if (problem == IP_GOOD) return p;
    S.drops++;
    if (ARG_DETAILS) S.details[problem]++;
    OUT(1, p);
    return NULL;
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }

static void ME(read_drop_details)(click_text *out) {
    if (ARG_DETAILS) click_text_ip_problems(out, S.details);
}

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    return true;
}
