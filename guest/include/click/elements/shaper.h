/* Shaper, BandwidthShaper: packets can be pulled while the bucket has LEAST units, COST(p) tokens a packet; a timer lets
 * those who pull try again. Handlers: rate (read, write), reset (write). */
static struct {
    click_bucket bucket;
    uint64_t rate;
} S = {.rate = ARG_RATE};

static void ME(timer)(void) {}

static click_packet *ME(pull)(uint32_t port) {
    click_bucket_fill(&S.bucket, S.rate, CAPACITY(S.rate));
    const bool full = S.bucket.units < LEAST;
    if (full) ME(due) = click_now + click_bucket_wait(&S.bucket, S.rate, LEAST);
    if (full != (port == 1)) return NULL;
    click_packet *p = IN(0);
    if (p && port == 0) S.bucket.units -= (int64_t)(COST(p)) * CLICK_TOKEN;
    return p;
}

static void ME(read_rate)(click_text *out) { click_text_unsigned(out, S.rate); }

static bool ME(write_rate)(const char *text, uint32_t len) {
    uint64_t rate;
    if (!click_parse_unsigned(text, len, &rate) || rate == 0 || rate > RATE_MAX) return false;
    S.rate = rate;
    return true;
}

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.bucket = (click_bucket){0, 0};
    return true;
}
