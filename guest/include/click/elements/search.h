/* Search: goes through a packet's bytes with an automaton, whose states from FIRST_FINAL on are those in which words end. In
 * the table a state stands as the place of its row. While it is in its first state, no word has begun, and bytes at which
 * none may begin are passed over.
 * Handlers: matches, drops, alerts, rules (read), reset (write). */
static struct {
    uint64_t serial; /* of the packet, so that it counts once for each rule */
    uint64_t drops, alerts;
    uint64_t seen[RULES], counts[RULES];
} S;

/* Counts the rules whose words end in a state; true when one of them drops the packet. */
static bool ME(final)(uint32_t state) {
    bool drops = false;
    for (uint32_t i = ME(final_starts)[state - FIRST_FINAL]; i < ME(final_starts)[state - FIRST_FINAL + 1]; i++) {
        const uint32_t rule = ME(final_rules)[i];
        if (S.seen[rule] == S.serial) continue;
        S.seen[rule] = S.serial;
        S.counts[rule]++;
        if (ME(drops_packet)[rule]) {
            drops = true;
        } else {
            S.alerts++;
        }
    }
    return drops;
}

/* Where the search begins, and how many bytes there are. */
static const uint8_t *ME(payload)(const click_packet *p, uint32_t *len) {
    uint8_t *ip = ARG_PAYLOAD && p->network ? click_ip(p) : NULL;
    *len = p->len;
    if (!ip) return p->data;
    const uint8_t *transport = click_ip_payload(ip);
    const uint32_t there = click_ip_payload_len(p, ip);
    uint32_t header = 0;
    if (click_ip_is_first(ip) && ip[IP_PROTOCOL] == IP_UDP) header = UDP_HEADER;
    if (click_ip_is_first(ip) && ip[IP_PROTOCOL] == IP_TCP && there >= TCP_HEADER) header = (transport[12] >> 4) * 4u;
    if (header > there) header = there;
    *len = there - header;
    return transport + header;
}

static const uint8_t *ME(pass_over)(const uint8_t *at, const uint8_t *end) {
    while (end - at > 16) {
        const uint32_t place = click_prefilter_place(&ME(prefilter), at);
        at += place;
        if (place < 16) break;
    }
    return at;
}

/* True when a rule drops the packet that has these bytes. */
static bool ME(search)(const uint8_t *at, const uint8_t *end) {
    uint32_t row = 0;
    bool drops = false;
    while (at < end) {
        if (row == 0) at = ME(pass_over)(at, end);
        row = ME(table)[row + ME(classes)[*at++]];
        if (row >= FIRST_FINAL * CLASSES) drops |= ME(final)(row / CLASSES);
    }
    return drops;
}

static click_packet *ME(action)(click_packet *p) {
    uint32_t len;
    const uint8_t *at = ME(payload)(p, &len);
    S.serial++;
    if (!ME(search)(at, at + len)) return p;
    S.drops++;
    OUT(1, p);
    return NULL;
}

/* A line for each rule that a packet has matched: how many packets, and its name. */
static void ME(read_matches)(click_text *out) {
    for (uint32_t rule = 0; rule < RULES; rule++) {
        if (!S.counts[rule]) continue;
        click_text_unsigned(out, S.counts[rule]);
        click_text_char(out, '\t');
        click_text_string(out, ME(names)[rule]);
        click_text_char(out, '\n');
    }
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }
static void ME(read_alerts)(click_text *out) { click_text_unsigned(out, S.alerts); }
static void ME(read_rules)(click_text *out) { click_text_unsigned(out, RULES); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    __builtin_memset(&S, 0, sizeof S);
    return true;
}
