/* Fuzzes a guest's own TCP on the host, where the sanitizers see every read and write.
 *
 * Input: steps until it ends. A step is one byte, whose lower two bits name a client, and what its kind asks for (see
 * `steps`): openings, segments around the place where each side is, options, frames that are noise, time that passes, and
 * what the service does. Sequence numbers are relative and checksums right, so inputs get deep. Bytes at a sequence number
 * are always the same, whatever order they come in; so are those that the service has sent. What the guest does is held
 * against both, and when all connections are over, so is all memory.
 */
#define EDGEOS_TCP 1
#include "../tests/tcp_service.h"

#define CLIENTS 4u
#define NOTED 32u
#define STRANGERS_PORT 50000u

/* What a client has said and heard. Numbers of the guest's count from its SYN. */
typedef struct client {
    uint64_t flow, number; /* that the service knows its connection by, and that its packets have */
    uint32_t iss, next;               /* where its opening was, and its next byte */
    uint32_t irs, sent;               /* of the guest: its SYN, and the end of what it sent */
    uint32_t edge, offered;           /* ends of windows: that it was told, and that it told */
    uint32_t acked;                   /* the last acknowledgement, from `origin` on */
    uint32_t largest;                 /* segment that it takes */
    uint32_t openings[NOTED], ends[NOTED]; /* numbers of SYN and FIN segments */
    uint32_t opening_count, end_count;
    uint8_t scale;
    bool answered;
} client;

static client clients[CLIENTS];
static uint64_t last_flow;

static struct {
    const uint8_t *at;
    size_t left;
} input;

static struct {
    uint8_t kind[8];
    uint16_t len[8];
    uint32_t count;
} actions; /* of the service, one for each event */

static uint8_t take8(void) {
    if (input.left == 0) return 0;
    input.left--;
    return *input.at++;
}

static uint32_t take16(void) {
    const uint32_t high = take8();
    return high << 8 | take8();
}

/* Small numbers are the likeliest ones; large ones are a few windows. */
static uint32_t take_distance(void) {
    const int8_t near = (int8_t)take8();
    return near >= -100 && near <= 100 ? (uint32_t)near : (uint32_t)(near * (int32_t)take16());
}

/* What comes has a number of its own, as after the host has forgotten the flow. */
static void renumber(client *c) {
    const path p = ledgers[c->number].path;
    c->number = ++last_flow;
    ledger_clear(&ledgers[c->number]);
    ledgers[c->number].path = p;
}

static void note(uint32_t *list, uint32_t *count, uint32_t number) { list[(*count)++ % NOTED] = number; }

static bool is_noted(const uint32_t *list, uint32_t count, uint32_t number) {
    for (uint32_t i = 0; i < least(count, NOTED); i++)
        if (list[i] == number) return true;
    return count > NOTED; /* some are forgotten */
}

/* ---- What the service does ---- */

static void act(ledger *l, uint8_t kind, uint32_t len) {
    static uint8_t bytes[8192];
    for (uint32_t i = 0; i < len; i++) bytes[i] = (uint8_t)(host.random >> i % 32 ^ i);
    host_random64();
    if (kind % 8 < 4) service_send(l, bytes, len);
    else if (kind % 8 == 4) service_finish(l);
    else if (kind % 8 == 5) service_close(l);
    else if (kind % 8 == 6) service_send(&ledgers[clients[len % CLIENTS].flow], bytes, len);
    else if (edgeos_emit(EDGEOS_BACK, bytes, len) == 0) ledger_append(l, bytes, len);
}

static int service_event(ledger *l, edgeos_message *m) {
    const client *c = clients;
    while (c < clients + CLIENTS - 1 && c->flow != l->flow) c++;
    if (m->kind == EDGEOS_HALF_CLOSED) HOST_CHECK(is_noted(c->ends, c->end_count, l->origin + l->received));
    if (actions.count == 0) return EDGEOS_BACK;
    const uint32_t i = --actions.count;
    const uint8_t kind = actions.kind[i];
    act(l, kind, actions.len[i]);
    return kind & 8 ? EDGEOS_BACK : EDGEOS_DONE;
}

/* ---- What the guest sends ---- */

static void check_opening(client *c, const segment *s) {
    HOST_CHECK(s->len == 0 && s->flags == (FLAG_SYN | FLAG_ACK) && is_noted(c->openings, c->opening_count, s->ack - 1));
    if (!c->answered || s->seq != c->irs) {
        c->flow = c->number;
        ledgers[c->flow].origin = s->ack;
        c->irs = s->seq, c->sent = 1, c->acked = 0, c->offered = 0, c->answered = true;
        c->edge = 65536;
    }
    HOST_CHECK(s->ack == ledgers[c->flow].origin);
    c->offered = most(c->offered, s->window);
}

static void check_segment(client *c, const segment *s) {
    const ledger *l = &ledgers[c->flow];
    const uint32_t at = s->seq - c->irs, end = at + s->len, acked = s->ack - l->origin;
    const bool fin = s->flags & FLAG_FIN;
    HOST_CHECK(c->answered && s->flags & FLAG_ACK && at <= c->sent && s->len <= c->largest);
    HOST_CHECK(acked >= c->acked);
    HOST_CHECK(s->len == 0 || (at >= 1 && end - 1 <= l->sent_len && !memcmp(s->data, l->sent + at - 1, s->len)));
    HOST_CHECK(!fin || ((l->finished || l->left) && end == l->sent_len + 1));
    HOST_CHECK(end + fin <= c->edge + 1); /* one byte may ask whether the window is still closed */
    HOST_CHECK(acked + s->window >= c->offered);
    c->acked = acked;
    c->offered = most(c->offered, acked + s->window);
    c->sent = most(c->sent, end + fin);
}

static void host_sent(const uint8_t *frame, uint32_t len) {
    path way;
    segment s;
    const uint8_t *ip = frame + (get16(frame + 12) == 0x8100 ? 18 : 14);
    HOST_CHECK(len >= 54);
    const uint32_t port = get16(ip + (ip[0] >> 4 == 4 ? 22 : 42));
    if (port < 1 || port > CLIENTS) return; /* an answer to noise */
    segment_read(frame, len, &way, &s);
    client *c = &clients[port - 1];
    if (s.flags & FLAG_RST) return;
    s.flags & FLAG_SYN ? check_opening(c, &s) : check_segment(c, &s);
}

/* ---- What the clients send ---- */

static void send_segment(client *c, segment *s) {
    uint8_t frame[EDGEOS_SLOT_SIZE], data[SEGMENT_DATA_MAX];
    const bool opens = s->flags & FLAG_SYN;
    stream_fill(data, ledgers[c->number].path.port, s->seq + opens, s->len);
    s->data = data;
    if (opens) note(c->openings, &c->opening_count, s->seq);
    if (opens) c->largest = most(c->largest, 1220);
    if (s->flags & FLAG_FIN) note(c->ends, &c->end_count, s->seq + opens + s->len);
    if (s->flags & FLAG_ACK && s->ack - c->irs <= c->sent)
        c->edge = most(c->edge, s->ack - c->irs + ((uint32_t)s->window << c->scale));
    host_receive(c->number, frame, segment_write(frame, &ledgers[c->number].path, s));
}

static void step_open(client *c) {
    const uint8_t how = take8();
    if (how & 1) c->iss = c->next + take_distance();
    segment s = {.seq = c->iss, .flags = FLAG_SYN, .window = (uint16_t)take16(), .scale = -1};
    if (how & 2) s.mss = (uint16_t)take16();
    if (how & 4) s.scale = (int8_t)(take8() & 15);
    uint8_t raw[40];
    if (how & 8) {
        s.raw_len = take8() % 41;
        s.raw = raw;
        for (uint32_t i = 0; i < s.raw_len; i++) raw[i] = take8();
    }
    if (how & 16) s.len = take16() % 1400;
    c->scale = most(c->scale, how & 8 ? 14 : s.scale > 0 ? least((uint32_t)s.scale, 14) : 0);
    c->largest = most(c->largest, how & 8 ? EDGEOS_TCP_SEGMENT : least(s.mss, EDGEOS_TCP_SEGMENT));
    c->next = c->iss + 1;
    send_segment(c, &s);
}

static void step_segment(client *c) {
    const uint8_t how = take8();
    segment s = {.seq = c->next, .ack = c->irs + c->sent, .flags = FLAG_ACK, .window = 65535, .scale = -1};
    if (how & 1) s.len = take16() % 1461;
    if (how & 2) s.seq += take_distance();
    if (how & 4) s.ack += take_distance();
    if (how & 8) s.window = (uint16_t)take16();
    if (how & 16) s.flags = take8();
    if (how & 32) s.flags |= FLAG_FIN;
    if (how & 64) s.padding = take8() % 60;
    if (s.seq == c->next) c->next += s.len;
    send_segment(c, &s);
}

/* Bytes as they are, or a segment of somebody who is not there, spoiled or not. */
static void step_noise(void) {
    uint8_t frame[EDGEOS_SLOT_SIZE], data[64] = {0};
    const uint8_t how = take8();
    const path p = {.family = how & 1 ? 4 : 6, .tagged = how >> 1 & 1, .port = STRANGERS_PORT};
    const segment s = {.seq = take16(), .flags = take8(), .len = take8() % 64, .scale = -1, .data = data};
    uint32_t len = segment_write(frame, &p, &s);
    if (how & 4) len = least(take8(), len);
    for (uint32_t changes = how >> 4; changes > 0 && len > 0; changes--) frame[take16() % len] ^= take8();
    const uint8_t *ports = frame + (p.tagged ? 18 : 14) + (p.family == 4 ? 20 : 40);
    if (get16(ports) <= CLIENTS || last_flow + 1 == HOST_FLOWS) return; /* a client's own after all */
    host_receive(++last_flow, frame, len);
}

/* From a microsecond to a minute; timers ring when they are due. */
static void pass_time(uint64_t ns) {
    host_run();
    const uint64_t end = host.now + ns;
    for (uint32_t rings = 0; host.alarm <= end && rings < 1000; rings++) {
        if (host.alarm > host.now) host.now = host.alarm;
        host_ring();
    }
    if (host.now < end) host.now = end;
}

static void step_service(client *c) {
    const uint8_t kind = take8();
    const uint32_t len = take16() % 8193;
    if (kind & 128) { /* now, as when another connection's event leads to it */
        host_run();
        if (kind % 8 < 6) act(&ledgers[c->flow], kind, len);
    } else if (actions.count < 8) {
        actions.kind[actions.count] = kind;
        actions.len[actions.count++] = (uint16_t)len;
    }
}

static void step(void) {
    const uint8_t what = take8();
    client *c = &clients[what & 3];
    if (host.ended[c->number] && last_flow + 1 < HOST_FLOWS) {
        host_run();
        renumber(c);
    }
    switch (what >> 2 & 7) {
    case 0: step_open(c); break;
    case 1:
    case 2: step_segment(c); break;
    case 3: step_noise(); break;
    case 4: pass_time(1000ull << take8() % 27); break;
    case 5: step_service(c); break;
    case 6: host_run(); break;
    default: host.refusals = what & 32 ? take8() : 0;
    }
}

/* The service leaves all connections, nobody answers, and nothing is left. */
static void end_all(void) {
    host_run();
    host.refusals = actions.count = 0;
    for (uint32_t i = 0; i < EDGEOS_TCP_CONNECTIONS; i++)
        if (tcp.flows[i] && edgeos_close(tcp.flows[i]) == 0) ledgers[tcp.flows[i]].left = true;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        segment s = {.seq = clients[i].next, .ack = clients[i].irs, .scale = -1}; /* one more burst, so that it takes note */
        send_segment(&clients[i], &s);
    }
    pass_time(3600ull * 1000000000u);
    HOST_CHECK(host.alarm == HOST_NEVER && tcp.connection_count == 0 && tcp.used_blocks == 0 && tcp.stored_blocks == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (uint64_t flow = 0; flow <= last_flow; flow++) ledger_clear(&ledgers[flow]);
    host_reset(size ? data[0] : 0);
    memset(&actions, 0, sizeof actions);
    memset(clients, 0, sizeof clients);
    last_flow = CLIENTS;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client *c = &clients[i];
        c->flow = c->number = i + 1;
        c->iss = c->next = i & 2 ? UINT32_MAX - 3000 : 1000;
        ledger_clear(&ledgers[c->flow]);
        ledgers[c->flow].path = (path){.family = i & 1 ? 6 : 4, .tagged = i == 3, .port = (uint16_t)(i + 1)};
    }
    input.at = data;
    input.left = size;
    while (input.left) step();
    end_all();
    return 0;
}
