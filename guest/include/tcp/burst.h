/* burst.h: one burst: packets to their connections, timers, and what leaves. */
#ifndef TCP_BURST_H
#define TCP_BURST_H

#define TCP_TIMER 0x4547444574637021u /* the token of TCP's timer; all others are the service's */

static uint64_t tcp_alarm_ns; /* when the host's timer comes; 0: none is set */

/* The host need not remember a flow of which there is no connection. */
static void tcp_forget(uint64_t flow) {
    if (flow && !tcp_has_host_flow(flow)) edgeos_import_stream(edgeos_current, flow, EDGEOS_BACK, EDGEOS_CLOSED, NULL, 0);
}

/* A segment of no connection. Returns the verdict on its message. */
static int tcp_strange(edgeos_message *m, const struct tcp_segment *s) {
    tcp_forget(m->flow);
    m->len = tcp_reset(s);
    return m->len ? EDGEOS_BACK : EDGEOS_DONE;
}

/* Sends what is due, and ends the connection if it is over. Returns the bytes of the frame that it left in the slot. */
static uint32_t tcp_proceed(struct tcp_connection *c, uint8_t *slot) {
    tcp_clear_mark(tcp_place(c));
    const uint32_t len = tcp_output(c, slot);
    if (tcp_settle(c)) tcp_end_connection(c);
    return len;
}

/* With `more` the next message is for the same connection, too: one acknowledgement will do for both. */
static int tcp_packet(edgeos_message *m, bool more) {
    struct tcp_segment s;
    if (m->flow == 0 || !tcp_read(&s, m->data, m->len)) {
        tcp_malformed.value++;
        tcp_forget(m->flow);
        return EDGEOS_DROP;
    }
    struct tcp_connection *c = tcp_find_segment(m->flow, &s);
    const bool opens = (s.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    if (c && opens && c->state == TCP_OVER && tcp_distance(c->received, s.seq) > 0) { /* RFC 9293, 3.6.1 */
        tcp_remove(c);
        c = NULL;
    }
    if (!c && opens && (c = tcp_begin(&s, m->flow))) {
        m->len = tcp_proceed(c, m->data);
        return EDGEOS_BACK;
    }
    if (!c) return tcp_strange(m, &s);
    const uint32_t capacity = (uint32_t)(m->data + m->capacity - s.payload);
    c->host_flow = m->flow;
    switch (c->state == TCP_OPENING ? tcp_arrive_opening(c, &s, capacity) : tcp_arrive_open(c, &s, capacity)) {
    case TCP_ENDED: tcp_end_connection(c); return EDGEOS_DONE;
    case TCP_STRANGE: return tcp_strange(m, &s);
    case TCP_TAKEN: break;
    }
    tcp_serve(c);
    if (more) {
        tcp_mark(c);
        return EDGEOS_DONE;
    }
    /* When memory comes free behind this message, more of the connection may leave, and must not overtake what is in the slot. */
    m->len = tcp_proceed(c, tcp_starved ? NULL : m->data);
    return m->len ? EDGEOS_BACK : EDGEOS_DONE;
}

/* ---- Time ---- */

static void tcp_timeout(struct tcp_connection *c) {
    c->deadline_ns = 0;
    tcp_mark(c);
    if (c->refused) {
        c->refused = false;
        if (c->abandoned && c->fin_acked) tcp_set_deadline(c, TCP_LINGER_MS);
        return;
    }
    if (c->state == TCP_OVER || (c->abandoned && c->fin_acked)) {
        tcp_end_connection(c);
        return;
    }
    c->tries++;
    if (c->tries > (c->state == TCP_OPENING ? TCP_OPENING_TRIES_MAX : TCP_TRIES_MAX) ||
        (c->abandoned && c->backoff == TCP_BACKOFF_MAX)) {
        tcp_given_up.value++;
        if (c->state != TCP_OPENING) tcp_emit_reset(c);
        tcp_end_connection(c);
        return;
    }
    if (c->window == 0 && c->state == TCP_OPEN) tcp_congestion_closed(c);
    else tcp_congestion_timeout(c);
    c->repeat = c->state == TCP_OPEN; /* whatever else would wait for a larger window */
}

/* The clock may be set back: no deadline is further off than the longest wait. */
static inline bool tcp_is_due(const struct tcp_connection *c) {
    return c->deadline_ns && (c->deadline_ns <= tcp_now || c->deadline_ns - tcp_now > (uint64_t)TCP_RTO_MAX_MS * TCP_MS + TCP_MS);
}

static void tcp_timers(void) {
    tcp_alarm_ns = 0;
    tcp_earliest = UINT64_MAX;
    for (uint32_t i = 0; i < EDGEOS_TCP_CONNECTIONS; i++) {
        struct tcp_connection *c = &tcp.connections[i];
        if (tcp.flows[i] == 0) continue;
        if (tcp_is_due(c)) tcp_timeout(c);
        else if (c->deadline_ns && c->deadline_ns < tcp_earliest) tcp_earliest = c->deadline_ns;
    }
}

/* One timer of the host's for all connections; one that comes too early does no harm, and is cheaper than to move it. */
static void tcp_set_alarm(void) {
    if (tcp_earliest == UINT64_MAX || (tcp_alarm_ns && tcp_alarm_ns <= tcp_earliest)) return;
    const bool set = edgeos_timer(tcp_earliest > tcp_now ? tcp_earliest - tcp_now : 0, TCP_TIMER) == 0;
    tcp_alarm_ns = set ? tcp_earliest : 0; /* the service may have all the timers; then the next burst tries again */
}

/* ---- The burst ---- */

/* Memory has come free that others waited for. */
static void tcp_serve_starved(void) {
    if (!tcp_starved || !tcp_has_room()) return;
    tcp_starved = false;
    for (uint32_t i = 0; i < EDGEOS_TCP_CONNECTIONS; i++) {
        struct tcp_connection *c = &tcp.connections[i];
        if (tcp.flows[i] == 0 || !(c->wants_room || c->stored != TCP_NO_BLOCK)) continue;
        tcp_serve(c);
        tcp_mark(c);
    }
}

/* What connections have to send that were not the last message's. */
static void tcp_flush(void) {
    tcp_serve_starved();
    for (uint32_t word = 0; word < sizeof tcp.dirty / sizeof *tcp.dirty; word++)
        while (tcp.dirty[word]) tcp_proceed(&tcp.connections[word * 64 + (uint32_t)__builtin_ctzll(tcp.dirty[word])], NULL);
}

static int tcp_message(edgeos_message *m, bool more) {
    if (m->kind == EDGEOS_PACKET) return tcp_packet(m, more);
    if (m->kind != EDGEOS_TIMER) { /* behind a listener, where this TCP does not belong */
        tcp_malformed.value++;
        return EDGEOS_DROP;
    }
    uint64_t token;
    __builtin_memcpy(&token, m->data, sizeof token);
    if (token != TCP_TIMER) return edgeos_handle(m);
    tcp_timers();
    return EDGEOS_DONE;
}

TCP_EXPORT void edgeos_burst(uint32_t first, uint32_t count) {
    tcp_no_room = false;
    for (uint32_t i = first; i < first + count; i++) {
        edgeos_message *m = &edgeos_messages[i];
        edgeos_current = i;
        tcp_now = m->time_ns;
        const bool more = i + 1 < first + count && m[1].kind == EDGEOS_PACKET && m[1].flow == m->flow;
        edgeos_verdicts[i] = tcp_message(m, more);
    }
    tcp_flush();
    tcp_set_alarm();
}

#endif /* TCP_BURST_H */
