/* ARPQuerier: Ethernet addresses by ARP, and the packets that wait for them. Addresses lie in SETS sets of four; a new one
 * takes the place of the one of its set that was used longest ago, whose waiting packets are dropped.
 * Handlers: ipaddr, broadcast, table, stats, queries, responses, drops, count, length (read); insert, delete, clear (write). */
#define WAYS 4u
#define ASK_AGAIN_NS 100000000u /* at most ten queries a second for an address */

typedef struct {
    uint32_t address; /* 0: the place is free */
    uint32_t waiting;
    bool known;
    uint8_t ether[ETHER_ADDRESS];
    uint64_t known_at, asked_at, used_at;
    click_packet *first, *last;
} ME(entry);

static struct {
    ME(entry) entries[SETS * WAYS];
    uint32_t waiting;
    uint64_t queries, responses, drops;
} S;

static ME(entry) *ME(find)(uint32_t address) {
    ME(entry) *set = &S.entries[(click_swap32(address) & (SETS - 1)) * WAYS];
    for (uint32_t i = 0; i < WAYS; i++) {
        if (set[i].address == address) return &set[i];
    }
    return NULL;
}

static click_packet *ME(take)(ME(entry) *entry) {
    click_packet *p = entry->first;
    if (!p) return NULL;
    entry->first = p->next;
    p->next = NULL;
    entry->waiting--;
    S.waiting--;
    return p;
}

/* Drops what waits for an address; between bursts none of it lies in a slot. */
static void ME(empty)(ME(entry) *entry) {
    for (click_packet *p; (p = ME(take)(entry));) {
        S.drops++;
        click_drop(p);
    }
}

static ME(entry) *ME(make)(uint32_t address) {
    ME(entry) *set = &S.entries[(click_swap32(address) & (SETS - 1)) * WAYS], *oldest = set;
    for (uint32_t i = 0; i < WAYS; i++) {
        if (set[i].address == 0) {
            oldest = &set[i];
            break;
        }
        if (set[i].used_at < oldest->used_at) oldest = &set[i];
    }
    ME(empty)(oldest);
    __builtin_memset(oldest, 0, sizeof *oldest);
    oldest->address = address;
    return oldest;
}

static void ME(ask)(ME(entry) *entry, const click_packet *about) {
    static const uint8_t everyone[ETHER_ADDRESS] = {255, 255, 255, 255, 255, 255};
    static const uint8_t fixed[6] = {0, 1, 8, 0, 6, 4};
    if (entry->asked_at && click_now - entry->asked_at < ASK_AGAIN_NS) return;
    click_packet *query = click_new(ARP_PACKET);
    if (!query) return;
    entry->asked_at = click_now;
    query->flow = about->flow;
    query->direction = about->direction;
    query->vlan_tci = about->vlan_tci;
    uint8_t *arp = query->data;
    click_put_ether(arp, entry->known && !ARG_BROADCAST_POLL ? entry->ether : everyone, ARG_ETH, ETHER_ARP);
    __builtin_memcpy(arp + ETHER_HEADER, fixed, sizeof fixed);
    click_put16(arp + ARP_OPERATION, ARP_REQUEST);
    __builtin_memcpy(arp + ARP_SENDER_ETHER, ARG_ETH, ETHER_ADDRESS);
    click_put_raw32(arp + ARP_SENDER, ARG_IP);
    click_put_raw32(arp + ARP_TARGET, entry->address);
    S.queries++;
    OUT(N_OUTPUTS == 2 ? 1 : 0, query);
}

static void ME(send)(click_packet *p, const uint8_t *to) {
    uint8_t *header = click_unstrip(p, ETHER_HEADER);
    if (!header) {
        S.drops++;
        click_drop(p);
        return;
    }
    click_put_ether(header, to, ARG_ETH, ETHER_IP);
    OUT(0, p);
}

static void ME(wait)(ME(entry) *entry, click_packet *p) {
    if (S.waiting == ARG_CAPACITY || entry->waiting == WAITING_MAX) {
        S.drops++;
        click_drop(p);
        return;
    }
    p->next = NULL;
    if (entry->first) {
        entry->last->next = p;
    } else {
        entry->first = p;
    }
    entry->last = p;
    entry->waiting++;
    S.waiting++;
}

static void ME(packet)(click_packet *p) {
    const uint32_t address = p->dst_ip;
    if (address == BROADCAST || address == 0xffffffffu) {
        ME(send)(p, (const uint8_t *)"\377\377\377\377\377\377");
        return;
    }
    if ((address & 0xf0) == 0xe0) { /* a group's Ethernet address: RFC 1112, 6.4 */
        const uint8_t group[ETHER_ADDRESS] = {0x01, 0x00, 0x5e, address >> 8 & 0x7f, address >> 16 & 0xff, address >> 24};
        ME(send)(p, group);
        return;
    }
    if (address == 0) {
        S.drops++;
        click_drop(p);
        return;
    }
    ME(entry) *entry = ME(find)(address);
    if (!entry) entry = ME(make)(address);
    entry->used_at = click_now;
    const uint64_t age = click_now - entry->known_at;
    if (entry->known && ARG_TIMEOUT && age >= ARG_TIMEOUT) entry->known = false;
    if (entry->known) {
        if (ARG_POLL_TIMEOUT && age >= ARG_POLL_TIMEOUT) ME(ask)(entry, p);
        ME(send)(p, entry->ether);
    } else {
        ME(ask)(entry, p);
        ME(wait)(entry, p);
    }
}

static void ME(learn)(ME(entry) *entry, const uint8_t *ether) {
    __builtin_memcpy(entry->ether, ether, ETHER_ADDRESS);
    entry->known = true;
    entry->known_at = click_now;
    entry->asked_at = 0;
}

/* An answer counts where it was asked for: others could fill the table. */
static void ME(answer)(click_packet *p) {
    ME(entry) *entry = click_is_arp(p, ARP_REPLY) ? ME(find)(click_raw32(p->data + ARP_SENDER)) : NULL;
    const bool valid = entry && entry->address && !(p->data[ARP_SENDER_ETHER] & 1);
    if (valid) {
        S.responses++;
        ME(learn)(entry, p->data + ARP_SENDER_ETHER);
    }
    click_drop(p);
    if (!valid) return;
    uint8_t ether[ETHER_ADDRESS];
    __builtin_memcpy(ether, entry->ether, sizeof ether);
    /* What is sent may come back here by a loop and wait again: only those that wait now. */
    for (uint32_t n = entry->waiting; n > 0; n--) {
        click_packet *waiting = ME(take)(entry);
        if (!waiting) break;
        ME(send)(waiting, ether);
    }
}

static void ME(push)(uint32_t port, click_packet *p) {
    if (port == 0) {
        ME(packet)(p);
    } else {
        ME(answer)(p);
    }
}

static void ME(read_ipaddr)(click_text *out) { click_text_ip4(out, ARG_IP); }
static void ME(read_broadcast)(click_text *out) { click_text_ip4(out, BROADCAST); }
static void ME(read_queries)(click_text *out) { click_text_unsigned(out, S.queries); }
static void ME(read_responses)(click_text *out) { click_text_unsigned(out, S.responses); }
static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }
static void ME(read_length)(click_text *out) { click_text_unsigned(out, S.waiting); }

static void ME(read_stats)(click_text *out) {
    click_text_unsigned(out, S.drops);
    click_text_string(out, " packets killed\n");
    click_text_unsigned(out, S.queries);
    click_text_string(out, " ARP queries sent\n");
}

static void ME(read_count)(click_text *out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < SETS * WAYS; i++) count += S.entries[i].address != 0;
    click_text_unsigned(out, count);
}

static void ME(read_table)(click_text *out) {
    for (uint32_t i = 0; i < SETS * WAYS; i++) {
        const ME(entry) *entry = &S.entries[i];
        if (!entry->address) continue;
        click_text_ip4(out, entry->address);
        click_text_char(out, ' ');
        click_text_bool(out, entry->known);
        click_text_char(out, ' ');
        click_text_ether(out, entry->ether);
        click_text_char(out, '\n');
    }
}

static bool ME(write_insert)(const char *text, uint32_t len) {
    uint32_t address;
    uint8_t ether[ETHER_ADDRESS];
    click_word word = click_next_word(&text, &len);
    if (!click_parse_ip4(word, &address) || address == 0) return false;
    word = click_next_word(&text, &len);
    if (!click_parse_ether(word, ether) || click_next_word(&text, &len).len) return false;
    ME(entry) *entry = ME(find)(address);
    if (!entry) entry = ME(make)(address);
    entry->used_at = click_now;
    ME(learn)(entry, ether);
    return true;
}

static bool ME(write_delete)(const char *text, uint32_t len) {
    uint32_t address;
    if (!click_parse_ip4(click_next_word(&text, &len), &address) || click_next_word(&text, &len).len) return false;
    ME(entry) *entry = address ? ME(find)(address) : NULL;
    if (!entry) return false;
    ME(empty)(entry);
    entry->address = 0;
    return true;
}

static bool ME(write_clear)(const char *text, uint32_t len) {
    (void)text, (void)len;
    for (uint32_t i = 0; i < SETS * WAYS; i++) {
        ME(empty)(&S.entries[i]);
        S.entries[i].address = 0;
    }
    return true;
}
#undef WAYS
#undef ASK_AGAIN_NS
