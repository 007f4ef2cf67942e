/* AverageCounter: what came between the first packet and the last. Handlers: count, byte_count, rate, byte_rate (read),
 * reset (write). */
static struct {
    uint64_t packets, bytes, begin, first, last;
} S;

static click_packet *ME(action)(click_packet *p) {
    if (!S.begin) S.begin = click_now;
    if (click_now - S.begin < ARG_IGNORE * 1000000000ull) return p;
    if (!S.first) S.first = click_now;
    S.last = click_now;
    S.packets++;
    S.bytes += p->len;
    return p;
}

/* A thousandth of one a second is the smallest that is told. */
static void ME(text_rate)(click_text *out, uint64_t count) {
    const uint64_t microseconds = (S.last - S.first) / 1000;
    click_text_decimal(out, microseconds && count < UINT64_MAX / 1000000000 ? count * 1000000000 / microseconds : 0, 3);
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.packets); }
static void ME(read_byte_count)(click_text *out) { click_text_unsigned(out, S.bytes); }
static void ME(read_rate)(click_text *out) { ME(text_rate)(out, S.packets); }
static void ME(read_byte_rate)(click_text *out) { ME(text_rate)(out, S.bytes); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    return true;
}
