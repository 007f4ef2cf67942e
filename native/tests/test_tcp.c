/* The guest's own TCP against clients written apart from it, over links that lose, double, reorder and spoil what they
 * carry, in time that is made up: both streams arrive whole, within a bounded time, for each of many seeds.
 *
 *     test_tcp [FIRST_SEED [COUNT ["tell"]]]      "tell" prints each segment
 */
#define EDGEOS_TCP 1
#include "tcp_link.h"

#ifndef SEEDS
#define SEEDS 3000u
#endif
#define LIMIT_NS (200 * (uint64_t)1000000000)

enum { ECHO, ECHO_BY_SEND, SOURCE, SINK, LEAVE, PLANS };

/* What the service does on a flow. */
static struct {
    uint8_t kind;
    uint32_t bytes, backlog_len;
    uint8_t *backlog;
} plans[HOST_FLOWS];

static void send_backlog(ledger *l) {
    const uint32_t have = plans[l->flow].backlog_len, taken = have ? service_send(l, plans[l->flow].backlog, have) : 0;
    if (taken) memmove(plans[l->flow].backlog, plans[l->flow].backlog + taken, have - taken);
    plans[l->flow].backlog_len -= taken;
    if (plans[l->flow].backlog_len == 0 && l->half_closed && !l->finished) service_finish(l);
}

static void keep_backlog(ledger *l, const uint8_t *data, uint32_t len) {
    const uint32_t have = plans[l->flow].backlog_len;
    plans[l->flow].backlog = realloc(plans[l->flow].backlog, have + len + 1);
    HOST_CHECK(plans[l->flow].backlog);
    if (len) memcpy(plans[l->flow].backlog + have, data, len);
    plans[l->flow].backlog_len += len;
}

static void send_more(ledger *l) {
    uint8_t data[5000];
    while (l->sent_len < plans[l->flow].bytes) {
        const uint32_t len = least(1 + host_random(sizeof data), plans[l->flow].bytes - l->sent_len);
        for (uint32_t i = 0; i < len; i++) data[i] = (uint8_t)host_random64();
        if (service_send(l, data, len) < len) return;
    }
    if (plans[l->flow].kind == LEAVE) service_close(l);
    else service_finish(l);
}

static int service_event(ledger *l, edgeos_message *m) {
    switch (plans[l->flow].kind) {
    case ECHO:
        return EDGEOS_BACK;
    case ECHO_BY_SEND:
        if (m->kind == EDGEOS_DATA) keep_backlog(l, m->data, m->len);
        if (m->kind != EDGEOS_CLOSED) send_backlog(l);
        break;
    case SINK:
        if (m->kind == EDGEOS_HALF_CLOSED) service_finish(l);
        break;
    default:
        if (m->kind == EDGEOS_OPEN || m->kind == EDGEOS_ROOM) send_more(l);
    }
    return EDGEOS_DONE;
}

/* 0 in half of the cases, so that each trouble is seen alone, too. */
static uint32_t trouble(uint32_t most_of_it) { return host_random(2) ? host_random(most_of_it) : 0; }

/* One link in three is without trouble. */
static void make_link(void) {
    wire.delay = 1000 * (uint64_t)(1 + host_random(host_random(2) ? 40000 : 1000));
    if (host_random(3) == 0) return;
    wire.lost = trouble(100), wire.doubled = trouble(100), wire.late = trouble(150), wire.spoiled = trouble(50);
    wire.jitter = trouble(2 * (uint32_t)wire.delay);
    host.refusals = trouble(60);
}

static void make_peer(uint32_t number) {
    peer *p = &peers[number];
    const uint64_t flow = number + 1;
    p->path = (path){.family = host_random(3) ? 4 : 6, .tagged = host_chance(200), .port = (uint16_t)(40000 + number)};
    p->flow = flow;
    p->iss = host_random(2) ? UINT32_MAX - host_random(100000) : (uint32_t)host_random64();
    p->mss = host_random(2) ? 1460 - (p->path.family == 6) * 20 : 200 + host_random(1260);
    p->total = host_random(3) ? host_random(150000) : host_random(3000);
    p->flight_max = p->mss * (1 + host_random(70));
    p->scale = host_random(3) ? (int8_t)host_random(9) : -1;
    p->window_max = most(p->mss, 1024 + host_random(p->scale >= 3 ? 400000 : 60000));
    p->options = (uint8_t)(host_random(3) * 2);
    p->read_chunk = host_random(3) ? p->window_max : 500 + host_random(4000);
    p->read_every = (p->read_chunk == p->window_max ? 0 : host_random(10)) * (uint64_t)MILLISECOND_NS;
    plans[flow].kind = (uint8_t)host_random(PLANS);
    plans[flow].bytes = host_random(2) ? host_random(150000) : host_random(3000);
    p->fin_waits = plans[flow].kind == LEAVE || (plans[flow].kind == SOURCE && host_random(2));
    if (plans[flow].kind == LEAVE) p->total = 0; /* what comes for a service that has left is answered by a reset */
}

/* The handshake's last segment was lost each time, from a client that has nothing to say before the service has. */
static bool peer_never_came(const peer *p) {
    return (wire.lost || wire.spoiled) && host.ended[p->flow] && !ledgers[p->flow].open && p->fin_waits && p->total == 0;
}

/* Who has everything and was heard may have to learn by a reset that the guest has forgotten the connection. */
static bool peer_is_over(const peer *p) {
    if (peer_never_came(p)) return true;
    return host.ended[p->flow] && (peer_is_done(p) || (p->reset && peer_has_all(p) && p->guest_acked == peer_end(p)));
}

static bool link_is_clean(void) {
    return !wire.lost && !wire.doubled && !wire.late && !wire.spoiled && !wire.jitter && !host.refusals;
}

static bool all_are_over(void) {
    for (uint32_t i = 0; i < peer_count; i++)
        if (!peer_is_over(&peers[i])) return false;
    return true;
}

static void check_streams(const peer *p) {
    const ledger *l = &ledgers[p->flow];
    if (peer_never_came(p)) return;
    HOST_CHECK(host.ended[p->flow] == 1);
    HOST_CHECK(l->received == p->total && p->got == l->sent_len + 2);
    HOST_CHECK(l->ended || l->left);
    if (plans[p->flow].kind == ECHO || plans[p->flow].kind == ECHO_BY_SEND) HOST_CHECK(l->sent_len == p->total);
    if (plans[p->flow].kind == SOURCE) HOST_CHECK(l->sent_len == plans[p->flow].bytes);
}

/* What was within a window that was offered has been kept, and nobody was impatient. Windows of one connection shrink when
 * others come, but not those that were offered before. */
static void check_nothing_was_sent_again(const peer *p) { HOST_CHECK(p->retransmits == 0 && tcp_repeated.value == 0); }

static void forget(void) {
    for (uint32_t flow = 0; flow < HOST_FLOWS; flow++) free(plans[flow].backlog);
    memset(plans, 0, sizeof plans);
    ledgers_clear();
    link_reset();
}

static void play(uint32_t seed, bool tells) {
    snprintf(host_scene, sizeof host_scene, "seed %u", seed);
    host_reset(seed);
    forget();
    make_link();
    wire.tells = tells;
    const uint32_t wanted = 1 + host_random(host_random(2) ? 1 : PEERS_MAX);
    for (uint32_t i = 0; i < wanted; i++) make_peer(i);
    uint64_t start = host.now;
    while (peer_count < wanted || !all_are_over()) {
        if (peer_count < wanted && host.now >= start) {
            peer_start(&peers[peer_count++]);
            start = host.now + host_random(100) * (uint64_t)MILLISECOND_NS;
        }
        if (peer_count < wanted && start < link_next_ns()) host.now = start > host.now ? start : host.now;
        else HOST_CHECK(link_step());
        HOST_CHECK(host.now - HOST_START_NS < LIMIT_NS);
    }
    for (uint32_t i = 0; i < peer_count; i++) check_streams(&peers[i]);
    if (link_is_clean() && wanted == 1) check_nothing_was_sent_again(&peers[0]);
    HOST_CHECK(tcp.used_blocks == 0);
}

int main(int count, char **arguments) {
    const uint32_t first = count > 1 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 0;
    const uint32_t seeds = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : SEEDS;
    for (uint32_t seed = first; seed < first + seeds; seed++) play(seed, count > 3);
    forget();
    printf("%u seeds passed\n", seeds);
    return 0;
}
