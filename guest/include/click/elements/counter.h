/* Counter: counts packets and bytes. Handlers: count, byte_count, rate, byte_rate, bit_rate (read), reset (write). */
static struct {
    uint64_t packets, bytes;
    click_rate rate, byte_rate;
} S;

static click_packet *ME(action)(click_packet *p) {
    if (click_now >= S.rate.epoch_end) {
        click_rate_update(&S.rate, S.packets);
        click_rate_update(&S.byte_rate, S.bytes);
    }
    S.packets++;
    S.bytes += p->len;
    return p;
}

static void ME(text_rate)(click_text *out, click_rate *rate, uint64_t count, uint64_t factor) {
    click_rate_update(rate, count);
    click_text_unsigned(out, click_rate_scaled(rate) * factor >> 10);
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.packets); }
static void ME(read_byte_count)(click_text *out) { click_text_unsigned(out, S.bytes); }
static void ME(read_rate)(click_text *out) { ME(text_rate)(out, &S.rate, S.packets, 1); }
static void ME(read_byte_rate)(click_text *out) { ME(text_rate)(out, &S.byte_rate, S.bytes, 1); }
static void ME(read_bit_rate)(click_text *out) { ME(text_rate)(out, &S.byte_rate, S.bytes, 8); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    return true;
}
