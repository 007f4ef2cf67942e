/* tcp_service.h: the service behind the guest's TCP, and a ledger of what it was told, got and sent on each flow.
 *
 * The byte of a client's stream at a sequence number is always the same for its port, so what arrives can be checked
 * wherever it started. The program that includes this defines service_event(), which gives the verdict.
 */
#ifndef TEST_TCP_SERVICE_H
#define TEST_TCP_SERVICE_H

#include "tcp_segment.h"

typedef struct ledger {
    uint64_t flow;
    path path;
    uint32_t origin; /* sequence number of the client's first byte */
    uint32_t received, sent_len, sent_room;
    uint8_t *sent;
    bool open, half_closed, finished, ended, short_of_room;
    bool left; /* by the service: it hears no more */
} ledger;

static ledger ledgers[HOST_FLOWS];

static int service_event(ledger *l, edgeos_message *m);

static uint8_t stream_byte(uint16_t port, uint32_t seq) {
    uint32_t x = seq * 2654435761u + port * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    return (uint8_t)(x >> 24);
}

static void stream_fill(uint8_t *to, uint16_t port, uint32_t seq, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) to[i] = stream_byte(port, seq + i);
}

/* Forgets all of them, or one that begins anew. */
static void ledger_clear(ledger *l) {
    free(l->sent);
    *l = (ledger){.flow = (uint64_t)(l - ledgers)};
}

static inline void ledgers_clear(void) {
    for (ledger *l = ledgers; l < ledgers + HOST_FLOWS; l++) ledger_clear(l);
}

static bool ledger_takes(const ledger *l) { return l->open && !l->ended && !l->left && !l->finished; }

static void ledger_append(ledger *l, const uint8_t *data, uint32_t len) {
    if (l->sent_len + len > l->sent_room) {
        l->sent_room = (l->sent_len + len) * 2 + 1024;
        l->sent = realloc(l->sent, l->sent_room);
        HOST_CHECK(l->sent);
    }
    if (len) memcpy(l->sent + l->sent_len, data, len);
    l->sent_len += len;
}

/* Sends, and notes what was taken. */
static inline uint32_t service_send(ledger *l, const uint8_t *data, uint32_t len) {
    const bool takes = ledger_takes(l);
    const int32_t taken = edgeos_send(l->flow, data, len);
    HOST_CHECK(takes ? taken >= 0 && taken <= (int32_t)len : taken <= 0);
    if (taken <= 0) {
        l->short_of_room |= takes && len;
        return 0;
    }
    l->short_of_room |= taken < (int32_t)len;
    ledger_append(l, data, (uint32_t)taken);
    return (uint32_t)taken;
}

static inline void service_finish(ledger *l) {
    const bool takes = ledger_takes(l);
    const int32_t done = edgeos_finish(l->flow);
    HOST_CHECK(!takes || done == 0);
    l->finished |= l->open;
}

static inline void service_close(ledger *l) {
    const bool hears = l->open && !l->ended && !l->left;
    const int32_t done = edgeos_close(l->flow);
    HOST_CHECK(done == (hears ? 0 : -1));
    l->left |= hears;
}

static void check_open(ledger *l, const edgeos_message *m) {
    edgeos_endpoints ends;
    uint8_t address[16], mapped[16] = {[10] = 0xff, [11] = 0xff};
    HOST_CHECK(m->len == sizeof ends);
    HOST_CHECK(!l->open || l->ended || l->left); /* a flow is used again only when it is over */
    memcpy(&ends, m->data, sizeof ends);
    const path p = l->path;
    const uint32_t origin = l->origin;
    ledger_clear(l);
    l->path = p, l->origin = origin, l->open = true;
    HOST_CHECK(ends.family == p.family && ends.transport == 6 && ends.upstream == 0);
    HOST_CHECK(ends.peer_port == p.port && ends.local_port == SERVER_PORT);
    for (int server = 0; server < 2; server++) {
        put_address(address, &p, server);
        if (p.family == 4) memcpy(mapped + 12, address, 4);
        HOST_CHECK(!memcmp(server ? ends.local : ends.peer, p.family == 4 ? mapped : address, 16));
    }
}

static void check_data(ledger *l, const edgeos_message *m) {
    HOST_CHECK(m->len > 0 && m->len <= m->capacity);
    for (uint32_t i = 0; i < m->len; i++)
        HOST_CHECK(m->data[i] == stream_byte(l->path.port, l->origin + l->received + i));
    l->received += m->len;
}

/* What the guest is told has to be in order and true; then the program decides. */
int edgeos_handle(edgeos_message *m) {
    HOST_CHECK(m->flow > 0 && m->flow < HOST_FLOWS && m->time_ns == host.now);
    HOST_CHECK(m->port == 0 && m->direction == EDGEOS_FORWARD);
    ledger *l = &ledgers[m->flow];
    if (m->kind != EDGEOS_OPEN) HOST_CHECK(l->open && !l->ended && !l->left);
    if (m->kind == EDGEOS_OPEN) {
        check_open(l, m);
    } else if (m->kind == EDGEOS_DATA) {
        HOST_CHECK(!l->half_closed);
        check_data(l, m);
    } else if (m->kind == EDGEOS_HALF_CLOSED) {
        HOST_CHECK(!l->half_closed);
        l->half_closed = true;
    } else if (m->kind == EDGEOS_ROOM) {
        HOST_CHECK(l->short_of_room);
        l->short_of_room = false;
    } else {
        HOST_CHECK(m->kind == EDGEOS_CLOSED);
        l->ended = true;
    }
    const int verdict = service_event(l, m);
    if (verdict == EDGEOS_BACK && m->kind == EDGEOS_DATA && ledger_takes(l)) ledger_append(l, m->data, m->len);
    if (verdict == EDGEOS_BACK && m->kind == EDGEOS_HALF_CLOSED) l->finished = true;
    return verdict;
}

#endif /* TEST_TCP_SERVICE_H */
