/* Meter, BandwidthMeter: ME(level) is the output for a rate, in 1/1024 of what COST(p) counts a second. Handler: rate (read). */
static struct {
    uint64_t count;
    click_rate rate;
} S;

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    click_rate_update(&S.rate, S.count);
    S.count += COST(p);
    OUT(ME(level)(click_rate_scaled(&S.rate)), p);
}

static void ME(read_rate)(click_text *out) {
    click_rate_update(&S.rate, S.count);
    click_text_unsigned(out, click_rate_scaled(&S.rate) >> 10);
}
