/* connection.h: what is known of each connection, and how a packet finds its own. */
#ifndef TCP_CONNECTION_H
#define TCP_CONNECTION_H

#define TCP_MS 1000000u /* in nanoseconds */
#define TCP_RTO_FIRST_MS 1000u
#define TCP_RTO_MIN_MS 200u
#define TCP_RTO_MAX_MS 60000u
#define TCP_TRIES_MAX 8u         /* timeouts in a row after which a peer is gone */
#define TCP_OPENING_TRIES_MAX 4u /* the same for one that has not answered the handshake */
#define TCP_LAST_MS 2000u        /* in TIME_WAIT; later the same segments are answered with a reset */
#define TCP_LINGER_MS 10000u     /* for the peer's end, when the service has closed */
#define TCP_AGAIN_MS 1u          /* when the host had no room for a segment */
#define TCP_WINDOW_MAX 65535u
#define TCP_SHARE_MIN 4096u

static inline uint32_t tcp_smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

EDGEOS_COUNTER(tcp_malformed); /* packets that were no sound segment */
EDGEOS_COUNTER(tcp_opened);
EDGEOS_COUNTER(tcp_refused);   /* beyond EDGEOS_TCP_CONNECTIONS */
EDGEOS_COUNTER(tcp_repeated);  /* segments sent again */
EDGEOS_COUNTER(tcp_given_up);  /* connections whose peer no longer answered */

static uint64_t tcp_now; /* when the message that is handled came */

static inline uint32_t tcp_place(const struct tcp_connection *c) { return (uint32_t)(c - tcp.connections); }

static inline void tcp_mark(const struct tcp_connection *c) { tcp.dirty[tcp_place(c) / 64] |= 1ull << tcp_place(c) % 64; }

static inline bool tcp_clear_mark(uint32_t place) {
    const uint64_t bit = 1ull << place % 64, was = tcp.dirty[place / 64] & bit;
    tcp.dirty[place / 64] &= ~bit;
    return was != 0;
}

static struct tcp_connection *tcp_find(uint64_t flow) {
    const uint32_t usual = (flow - 1) % EDGEOS_TCP_CONNECTIONS;
    if (tcp.flows[usual] == flow && flow) return &tcp.connections[usual];
    for (uint32_t i = 0; flow && i < EDGEOS_TCP_CONNECTIONS; i++)
        if (tcp.flows[i] == flow) return &tcp.connections[i];
    return NULL;
}

/* Whether the host names a connection so. */
static bool tcp_has_host_flow(uint64_t flow) {
    for (uint32_t i = 0; i < EDGEOS_TCP_CONNECTIONS; i++)
        if (tcp.flows[i] && tcp.connections[i].host_flow == flow) return true;
    return false;
}

/* The connection of a segment. The host may have forgotten a silent flow and given it another number since. */
static struct tcp_connection *tcp_find_segment(uint64_t flow, const struct tcp_segment *s) {
    struct tcp_connection *c = tcp_find(flow);
    if (c && tcp_headers_match(&c->headers, s)) return c;
    for (uint32_t i = 0; tcp.connection_count && i < EDGEOS_TCP_CONNECTIONS; i++) {
        if (tcp.flows[i] == 0 || !tcp_headers_match(&tcp.connections[i].headers, s)) continue;
        return &tcp.connections[i];
    }
    return NULL;
}

/* A place for a connection, NULL when all are taken. */
static struct tcp_connection *tcp_add(uint64_t flow) {
    uint32_t place = (flow - 1) % EDGEOS_TCP_CONNECTIONS;
    for (uint32_t i = 0; tcp.flows[place] != 0; place = (place + 1) % EDGEOS_TCP_CONNECTIONS)
        if (++i == EDGEOS_TCP_CONNECTIONS) return NULL;
    struct tcp_connection *c = &tcp.connections[place];
    __builtin_memset(c, 0, sizeof *c);
    c->flow = c->host_flow = tcp.flows[place] = flow;
    c->queue = tcp_empty_queue;
    c->stored = TCP_NO_BLOCK;
    tcp.connection_count++;
    return c;
}

/* Lets go of its memory and place. */
static void tcp_remove(struct tcp_connection *c) {
    tcp_queue_drop(&c->queue, c->queue.len);
    while (c->stored != TCP_NO_BLOCK) tcp_store_drop_first(&c->stored);
    tcp.flows[tcp_place(c)] = 0;
    tcp_clear_mark(tcp_place(c));
    tcp.connection_count--;
}

/* Bytes that one connection may have under way in one direction: its share of half of the memory, but for what the ends of
 * its blocks leave free and the last answer takes beyond it. */
static inline uint32_t tcp_share(void) {
    const uint32_t blocks = (TCP_BLOCKS - TCP_RESERVED_BLOCKS) / 2 / (tcp.connection_count ? tcp.connection_count : 1);
    const uint32_t share = blocks > 2 ? (blocks - 2) * TCP_BLOCK_BYTES : 0;
    return share < TCP_SHARE_MIN ? TCP_SHARE_MIN : tcp_smaller(share, TCP_WINDOW_MAX);
}

/* The number behind everything that is to be sent, a FIN among it. */
static inline uint32_t tcp_end(const struct tcp_connection *c) {
    return c->una + c->queue.len + (c->state == TCP_OPENING) + (c->finishing && !c->fin_acked);
}

static uint64_t tcp_earliest = UINT64_MAX; /* of all deadlines, or earlier */

static inline void tcp_set_deadline(struct tcp_connection *c, uint32_t ms) {
    c->deadline_ns = tcp_now + (uint64_t)ms * TCP_MS;
    c->refused = false;
    if (c->deadline_ns < tcp_earliest) tcp_earliest = c->deadline_ns;
}

static inline uint32_t tcp_rto_ms(const struct tcp_connection *c) {
    const uint64_t rto = (uint64_t)c->rto_ms << c->backoff;
    return rto > TCP_RTO_MAX_MS ? TCP_RTO_MAX_MS : (uint32_t)rto;
}

#endif /* TCP_CONNECTION_H */
