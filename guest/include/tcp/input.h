/* input.h: what a segment that arrives does to its connection (RFC 9293, 3.10.7; RFC 5961). */
#ifndef TCP_INPUT_H
#define TCP_INPUT_H

enum tcp_arrival {
    TCP_TAKEN,
    TCP_ENDED,  /* the peer has reset the connection */
    TCP_STRANGE /* to be answered with a reset */
};

/* The connection is over: the service is told, unless it knows, and the host, which forgets the flow. */
static void tcp_end_connection(struct tcp_connection *c) {
    if (c->state != TCP_OPENING && !c->abandoned) {
        c->abandoned = true;
        tcp_tell(c, EDGEOS_CLOSED, NULL, 0, 0);
    }
    edgeos_import_stream(edgeos_current, c->host_flow, EDGEOS_BACK, EDGEOS_CLOSED, NULL, 0);
    tcp_remove(c);
}

/* Ends the one that is over and has lasted longest, if there is any. */
static void tcp_make_way(void) {
    struct tcp_connection *first = NULL;
    for (uint32_t i = 0; i < EDGEOS_TCP_CONNECTIONS; i++) {
        struct tcp_connection *c = &tcp.connections[i];
        if (tcp.flows[i] && c->state == TCP_OVER && (!first || c->deadline_ns < first->deadline_ns)) first = c;
    }
    if (first) tcp_end_connection(first);
}

/* A new connection, from its first segment; NULL: there are too many. */
static struct tcp_connection *tcp_begin(const struct tcp_segment *s, uint64_t flow) {
    if (tcp.connection_count == EDGEOS_TCP_CONNECTIONS) tcp_make_way();
    struct tcp_connection *c = tcp_add(flow);
    if (!c) {
        tcp_refused.value++;
        return NULL;
    }
    const uint32_t largest = EDGEOS_TCP_SEGMENT - (s->v6 ? 20u : 0u), named = s->mss ? s->mss : s->v6 ? 1220 : 536;
    tcp_headers_back(&c->headers, s);
    edgeos_import_random(&c->una, sizeof c->una); /* nobody can guess it (RFC 6528) */
    c->next = c->sent = c->una;
    c->received = c->delivered = c->edge = s->seq + 1;
    c->mss = (uint16_t)(named < 88 ? 88 : tcp_smaller(named, largest));
    c->scale = s->scale;
    c->window = c->window_max = s->window;
    tcp_congestion_start(c);
    return c;
}

static void tcp_new_window(struct tcp_connection *c, const struct tcp_segment *s) {
    /* What acknowledges new bytes is the latest word, though it may be a segment that is sent again. */
    const int32_t newer = s->ack != c->una ? 1 : tcp_distance(c->window_seq, s->seq);
    if (newer < 0 || (newer == 0 && tcp_distance(c->window_ack, s->ack) < 0)) return;
    c->window_seq = s->seq;
    c->window_ack = s->ack;
    c->window = s->window << c->scale;
    if (c->window > c->window_max) c->window_max = c->window;
}

/* New bytes are acknowledged, or a FIN. */
static void tcp_acknowledged(struct tcp_connection *c, uint32_t ack) {
    const uint32_t acked = ack - c->una;
    const bool fin = acked > c->queue.len;
    tcp_queue_drop(&c->queue, acked - fin);
    c->fin_acked |= fin;
    c->una = ack;
    if (tcp_distance(c->next, ack) > 0) c->next = ack;
    if (c->timed_ns && tcp_distance(c->timed, ack) >= 0) tcp_take_time(c);
    tcp_congestion_acked(c, acked);
    c->backoff = 0;
    c->deadline_ns = 0;
    if (c->sent != ack) tcp_set_deadline(c, tcp_rto_ms(c));
    if (c->abandoned && c->fin_acked) tcp_set_deadline(c, TCP_LINGER_MS);
}

/* The acknowledgement that a segment carries. False: it is none that may be (RFC 5961, 5.2). */
static bool tcp_take_ack(struct tcp_connection *c, const struct tcp_segment *s) {
    const int32_t acked = tcp_distance(c->una, s->ack);
    const uint32_t window = c->window;
    if (acked < 0) return (uint32_t)-acked <= c->window_max;
    if ((uint32_t)acked > c->sent - c->una) return false;
    c->tries = 0; /* the peer is there */
    tcp_new_window(c, s);
    if (window == 0 && c->window && tcp_end(c) != c->una) c->backoff = 0, c->deadline_ns = 0; /* it was asked for ever more rarely */
    if (acked > 0) {
        tcp_acknowledged(c, s->ack);
    } else if (s->len == 0 && !(s->flags & TCP_FIN) && c->sent != c->una && c->window == window) {
        tcp_congestion_duplicate(c);
    }
    return true;
}

/* Cuts off what came before or lies beyond the window; false when nothing is left that says anything new. */
static bool tcp_trim(const struct tcp_connection *c, struct tcp_segment *s) {
    const int32_t old = tcp_distance(s->seq, c->received);
    if (old > 0) {
        const uint32_t cut = tcp_smaller((uint32_t)old, s->len);
        s->payload += cut;
        s->len -= cut;
        s->seq += cut;
        if (s->seq != c->received) return false; /* its FIN is old, too */
    }
    const int32_t room = tcp_distance(s->seq, c->edge);
    if (room < 0) return false;
    if (s->len > (uint32_t)room) {
        s->len = (uint32_t)room;
        s->flags &= (uint8_t)~TCP_FIN;
    }
    return true;
}

/* Hands over what comes next, up to the first piece that came before it: however full the store is, a hole gets closed. */
static void tcp_take_next(struct tcp_connection *c, struct tcp_segment *s, uint32_t capacity) {
    const uint32_t hole = c->stored == TCP_NO_BLOCK ? s->len : tcp.blocks[c->stored].seq - c->received;
    const uint32_t len = tcp_smaller(s->len, hole);
    uint8_t *data = s->payload;
    c->received += len;
    s->seq += len;
    s->payload += len;
    s->len -= len;
    if (len) tcp_tell_data(c, data, len, s->len ? len : capacity);
}

/* Bytes and FIN of a segment that has been trimmed. */
static void tcp_take_payload(struct tcp_connection *c, struct tcp_segment *s, uint32_t capacity) {
    if (s->flags & TCP_FIN && !c->fin_known) {
        c->fin = s->seq + s->len;
        if (tcp_store_end(c->stored, c->fin) != c->fin) return; /* bytes behind it have come */
        c->fin_known = true;
    }
    if (c->fin_known && tcp_distance(c->fin, s->seq + s->len) > 0) return; /* bytes behind the end */
    if (s->seq == c->received && c->delivered == c->received && tcp_takes_answers(c)) tcp_take_next(c, s, capacity);
    if (s->len) tcp_store_add(&c->stored, s->seq, s->payload, s->len);
    c->received = tcp_store_whole(c->stored, c->received);
    if (c->fin_known && c->received == c->fin && !c->peer_done) {
        c->peer_done = true;
        c->received++;
        if (tcp_distance(c->edge, c->received) > 0) c->edge = c->received; /* it takes no room in the window */
    }
}

/* A segment of an open connection. */
static enum tcp_arrival tcp_arrive_open(struct tcp_connection *c, struct tcp_segment *s, uint32_t capacity) {
    const uint32_t window = c->edge - c->received;
    const int32_t at = tcp_distance(c->received, s->seq);
    const int32_t end = at + (int32_t)s->len + ((s->flags & TCP_FIN) != 0);
    const bool inside = at <= (int32_t)window && end >= 0;
    if (s->flags & TCP_RST) {
        if (at == 0) return TCP_ENDED;
        c->ack_due |= inside; /* a challenge: who has really lost the connection knows the number then (RFC 5961, 3.2) */
        return TCP_TAKEN;
    }
    if (s->flags & TCP_SYN || !inside) {
        c->ack_due = true;
        return TCP_TAKEN;
    }
    if (!(s->flags & TCP_ACK)) return TCP_TAKEN;
    if (!tcp_take_ack(c, s)) {
        c->ack_due = true;
        return TCP_TAKEN;
    }
    tcp_headers_follow(&c->headers, s);
    if (s->len == 0 && !(s->flags & TCP_FIN)) return TCP_TAKEN;
    c->ack_due = true;
    if (!c->peer_done && tcp_trim(c, s)) tcp_take_payload(c, s, capacity);
    return TCP_TAKEN;
}

/* The first acknowledgement: the connection is open. */
static void tcp_open(struct tcp_connection *c, const struct tcp_segment *s) {
    c->state = TCP_OPEN;
    c->una = c->next = c->sent = c->recover = s->ack;
    if (c->timed_ns && c->tries == 0) tcp_take_time(c);
    c->timed_ns = c->deadline_ns = 0;
    c->tries = c->backoff = 0;
    if (c->scale == TCP_NO_SCALE) c->scale = 0;
    c->window_seq = s->seq;
    c->window_ack = s->ack;
    c->window = c->window_max = s->window << c->scale;
    tcp_tell_open(c);
}

/* What arrives before that. */
static enum tcp_arrival tcp_arrive_opening(struct tcp_connection *c, struct tcp_segment *s, uint32_t capacity) {
    if (s->flags & TCP_RST) return s->seq == c->received ? TCP_ENDED : TCP_TAKEN;
    if (s->flags & TCP_SYN) { /* our answer was lost; or the peer begins anew, and by the same answer learns to reset this one */
        c->next = c->una;
        return TCP_TAKEN;
    }
    if (!(s->flags & TCP_ACK) || tcp_distance(c->received, s->seq) < 0 || tcp_distance(s->seq, c->edge) < 0) return TCP_TAKEN;
    if (s->ack != c->una + 1) return TCP_STRANGE;
    tcp_open(c, s);
    return tcp_arrive_open(c, s, capacity);
}

/* Whether both sides have ended; then the connection is over, or waits for segments that are late. */
static bool tcp_settle(struct tcp_connection *c) {
    if (c->state != TCP_OPEN || !c->fin_acked || !c->peer_done || !(c->told_half || c->abandoned)) return false;
    if (!c->lasts) return true;
    if (!c->abandoned) {
        c->abandoned = true;
        tcp_tell(c, EDGEOS_CLOSED, NULL, 0, 0);
    }
    c->state = TCP_OVER;
    tcp_set_deadline(c, TCP_LAST_MS);
    return false;
}

#endif /* TCP_INPUT_H */
