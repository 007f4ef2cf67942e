/* problems.h: what all checks of headers have, included by their templates for each instance: their state, ME(found), and the
 * handlers drops, drop_details (read), reset_counts (write). PROBLEMS is how many kinds of them there are, TEXT_PROBLEMS
 * writes how often each was found. */
static struct {
    uint64_t drops, details[ARG_DETAILS ? PROBLEMS : 1];
} S;

static void ME(found)(uint32_t problem) {
    S.drops++;
    if (ARG_DETAILS) S.details[problem]++;
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }

static void ME(read_drop_details)(click_text *out) {
    if (ARG_DETAILS) TEXT_PROBLEMS(out, S.details);
}

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    return true;
}
#undef PROBLEMS
#undef TEXT_PROBLEMS
