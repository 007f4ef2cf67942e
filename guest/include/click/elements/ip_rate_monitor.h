/* IPRateMonitor: a tree of rates by the bytes of an address. SHARE of 2^32 packets are looked at, each for WEIGHT / 1024 of
 * them; COST(p) is what counts. Handlers: look, thresh (read), reset (write). */
typedef struct {
    uint64_t count; /* WEIGHT for each */
    click_rate rate;
} ME(meter);

typedef struct {
    ME(meter) meters[256];
} ME(node);

static struct {
    uint32_t used; /* nodes; the first of each input is there from the start */
    uint64_t since;
    uint16_t children[NODES + 2][256]; /* the node below, 0 = none */
    ME(node) nodes[NODES + 2];
} S = {.used = 2};

static void ME(count)(uint32_t input, uint32_t address, uint64_t cost) {
    uint32_t node = input;
    for (uint32_t level = 0; level < 4; level++) {
        const uint32_t byte = address >> (8 * level) & 255;
        ME(meter) *meter = &S.nodes[node].meters[byte];
        click_rate_update(&meter->rate, meter->count);
        meter->count += cost;
        if (level == 3) return;
        if (!S.children[node][byte]) {
            if (click_rate_scaled(&meter->rate) >> 10 < THRESH * 1024 || S.used == NODES + 2) return;
            S.children[node][byte] = (uint16_t)S.used++;
        }
        node = S.children[node][byte];
    }
}

static void ME(look_at)(uint32_t input, const click_packet *p) {
    const uint8_t *ip = click_ip(p);
    if (!S.since) S.since = click_now;
    if (ip && (SHARE == 0xffffffffu || click_random() <= SHARE))
        ME(count)(input, click_raw32(ip + (input == 0 ? IP_SRC : IP_DST)), (uint64_t)(COST(p)) * WEIGHT);
}

#if PUSHES
static void ME(push)(uint32_t port, click_packet *p) {
    ME(look_at)(port, p);
    OUT(port, p);
}
#else
static click_packet *ME(pull)(uint32_t port) {
    click_packet *p = IN(port);
    if (p) ME(look_at)(port, p);
    return p;
}
#endif

/* A line for each prefix that is looked at: its bytes, the rate of sources, that of destinations. */
static void ME(text_node)(click_text *out, uint32_t input, uint32_t node, uint32_t level, uint32_t prefix) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        ME(meter) *meter = &S.nodes[node].meters[byte];
        if (!meter->count) continue;
        click_rate_update(&meter->rate, meter->count);
        const uint32_t address = prefix | byte << (8 * level);
        for (uint32_t i = 0; i <= level; i++) {
            if (i) click_text_char(out, '.');
            click_text_unsigned(out, address >> (8 * i) & 255);
        }
        click_text_string(out, input == 0 ? "\tfrom\t" : "\tto\t");
        click_text_decimal(out, (click_rate_scaled(&meter->rate) >> 10) * 1000 / 1024, 3);
        click_text_char(out, '\n');
        if (S.children[node][byte]) ME(text_node)(out, input, S.children[node][byte], level + 1, address);
    }
}

static void ME(read_look)(click_text *out) {
    click_text_unsigned(out, S.since ? (click_now - S.since) / CLICK_EPOCH_NS : 0);
    click_text_char(out, '\n');
    for (uint32_t input = 0; input < N_INPUTS; input++) ME(text_node)(out, input, input, 0, 0);
}

static void ME(read_thresh)(click_text *out) { click_text_unsigned(out, THRESH); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    S.used = 2;
    return true;
}
