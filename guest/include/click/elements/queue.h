/* Queue, SimpleQueue, FrontDropQueue: keep up to ARG_CAPACITY packets, the oldest out first. FRONT_DROP: a full one gives up its
 * oldest packet, else the new one. Handlers: length, highwater_length, capacity, drops (read); reset_counts, reset (write). */
static struct {
    click_packet *first, *last;
    uint32_t length, most;
    uint64_t drops;
} S;

static click_packet *ME(pull)(uint32_t port) {
    (void)port;
    click_packet *p = S.first;
    if (p) {
        S.first = p->next;
        p->next = NULL;
        S.length--;
    }
    return p;
}

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    if (S.length == ARG_CAPACITY) {
        S.drops++;
        if (!FRONT_DROP) {
            click_drop(p);
            return;
        }
        click_drop(ME(pull)(0));
    }
    p->next = NULL;
    if (S.first) {
        S.last->next = p;
    } else {
        S.first = p;
    }
    S.last = p;
    if (++S.length > S.most) S.most = S.length;
}

static void ME(read_length)(click_text *out) { click_text_unsigned(out, S.length); }
static void ME(read_highwater_length)(click_text *out) { click_text_unsigned(out, S.most); }
static void ME(read_capacity)(click_text *out) { click_text_unsigned(out, ARG_CAPACITY); }
static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.drops = 0;
    S.most = S.length;
    return true;
}

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    while (S.first) click_forget(ME(pull)(0)); /* handlers run between bursts: none lies in a slot */
    return ME(write_reset_counts)(text, len);
}
