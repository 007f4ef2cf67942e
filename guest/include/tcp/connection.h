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

enum tcp_state {
    TCP_OPENING, /* SYN-RECEIVED */
    TCP_OPEN,    /* from ESTABLISHED on; the flags below tell how far either side has ended */
    TCP_OVER     /* TIME-WAIT */
};

struct tcp_connection {
    uint64_t flow;      /* as the service knows it */
    uint64_t host_flow; /* as the host names it now */
    uint64_t deadline_ns; /* when its timer runs out; 0: it has none */

    /* What the service sends; una, next and sent are SND.UNA, SND.NXT and the highest SND.NXT ever. */
    uint32_t una, next, sent;
    uint32_t window, window_seq, window_ack, window_max;
    struct tcp_queue queue; /* from una on, but for SYN and FIN */

    /* What comes; received is RCV.NXT, edge the end of the window that was offered. */
    uint32_t received, delivered, edge;
    uint32_t fin; /* number of the peer's FIN, once fin_known */
    uint16_t stored;

    uint16_t mss;
    uint8_t state;
    uint8_t scale;
    uint8_t tries;
    uint8_t backoff;
    uint8_t duplicates;

    bool finishing : 1;  /* the service sends no more; a FIN ends the queue */
    bool fin_acked : 1;
    bool fin_known : 1;
    bool peer_done : 1;  /* all up to its FIN has come */
    bool told_half : 1;
    bool abandoned : 1;  /* the service hears no more of it */
    bool wants_room : 1;
    bool ack_due : 1;
    bool repeat : 1;     /* the first segment is sent again */
    bool recovering : 1; /* RFC 6582 */
    bool refused : 1;    /* the host had no room */
    bool lasts : 1;      /* our FIN left before the peer's came: TIME-WAIT is ours */

    /* Congestion and time: RFC 5681, RFC 6298. */
    uint32_t congestion, threshold, recover;
    uint32_t srtt_us, variation_us, rto_ms;
    uint32_t timed; /* the number that ends the segment whose time is taken */
    uint64_t timed_ns; /* when it was sent; 0: none is timed */

    struct tcp_headers headers;
};

static struct tcp_connection tcp_connections[EDGEOS_TCP_CONNECTIONS];
static uint64_t tcp_flows[EDGEOS_TCP_CONNECTIONS]; /* of each place, 0: free */
static uint32_t tcp_connection_count;
static uint64_t tcp_dirty[(EDGEOS_TCP_CONNECTIONS + 63) / 64]; /* that may have something to send */

EDGEOS_COUNTER(tcp_malformed); /* packets that were no sound segment */
EDGEOS_COUNTER(tcp_opened);
EDGEOS_COUNTER(tcp_refused);   /* beyond EDGEOS_TCP_CONNECTIONS */
EDGEOS_COUNTER(tcp_repeated);  /* segments sent again */
EDGEOS_COUNTER(tcp_given_up);  /* connections whose peer no longer answered */

static uint64_t tcp_now; /* when the message that is handled came */

static inline uint32_t tcp_place(const struct tcp_connection *c) { return (uint32_t)(c - tcp_connections); }

static inline void tcp_mark(const struct tcp_connection *c) { tcp_dirty[tcp_place(c) / 64] |= 1ull << tcp_place(c) % 64; }

static inline bool tcp_clear_mark(uint32_t place) {
    const uint64_t bit = 1ull << place % 64, was = tcp_dirty[place / 64] & bit;
    tcp_dirty[place / 64] &= ~bit;
    return was != 0;
}

static struct tcp_connection *tcp_find(uint64_t flow) {
    const uint32_t usual = flow % EDGEOS_TCP_CONNECTIONS;
    if (tcp_flows[usual] == flow && flow) return &tcp_connections[usual];
    for (uint32_t i = 0; flow && i < EDGEOS_TCP_CONNECTIONS; i++)
        if (tcp_flows[i] == flow) return &tcp_connections[i];
    return NULL;
}

/* The connection of a segment. The host may have forgotten a silent flow and given it another number since. */
static struct tcp_connection *tcp_find_segment(uint64_t flow, const struct tcp_segment *s) {
    struct tcp_connection *c = tcp_find(flow);
    if (c && tcp_headers_match(&c->headers, s)) return c;
    for (uint32_t i = 0; tcp_connection_count && i < EDGEOS_TCP_CONNECTIONS; i++) {
        if (tcp_flows[i] == 0 || !tcp_headers_match(&tcp_connections[i].headers, s)) continue;
        return &tcp_connections[i];
    }
    return NULL;
}

/* A place for a connection, NULL when all are taken. */
static struct tcp_connection *tcp_add(uint64_t flow) {
    uint32_t place = flow % EDGEOS_TCP_CONNECTIONS;
    for (uint32_t i = 0; tcp_flows[place] != 0; place = (place + 1) % EDGEOS_TCP_CONNECTIONS)
        if (++i == EDGEOS_TCP_CONNECTIONS) return NULL;
    struct tcp_connection *c = &tcp_connections[place];
    __builtin_memset(c, 0, sizeof *c);
    c->flow = c->host_flow = tcp_flows[place] = flow;
    c->queue = tcp_empty_queue;
    c->stored = TCP_NO_BLOCK;
    tcp_connection_count++;
    return c;
}

/* Lets go of its memory and place. */
static void tcp_remove(struct tcp_connection *c) {
    tcp_queue_drop(&c->queue, c->queue.len);
    while (c->stored != TCP_NO_BLOCK) tcp_store_drop_first(&c->stored);
    tcp_flows[tcp_place(c)] = 0;
    tcp_clear_mark(tcp_place(c));
    tcp_connection_count--;
}

/* Bytes that one connection may have under way in one direction: its share of half of the memory, but for what the ends of
 * its blocks leave free and the last answer takes beyond it. */
static inline uint32_t tcp_share(void) {
    const uint32_t blocks = (TCP_BLOCKS - TCP_RESERVED_BLOCKS) / 2 / (tcp_connection_count ? tcp_connection_count : 1);
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
