/* output.h: decides which segments leave, and sends them. The last of a round is left in the slot of the message that gave
 * rise to it, all others leave as messages of the guest's own before it, so their order is kept. */
#ifndef TCP_OUTPUT_H
#define TCP_OUTPUT_H

/* A segment that is to leave. */
struct tcp_plan {
    uint32_t seq, len;
    uint8_t flags;
    bool aside; /* it does not move next, or only ahead */
    bool again;
};

/* Extends the window where that is worth a segment; what was offered is never taken back (RFC 9293, 3.8.6). */
static uint16_t tcp_offer_window(struct tcp_connection *c) {
    const uint32_t share = tcp_share(), waiting = c->received - c->delivered;
    const uint32_t edge = c->received + (waiting < share ? share - waiting : 0);
    const int32_t more = tcp_distance(c->edge, edge);
    if (more >= (int32_t)tcp_smaller(EDGEOS_TCP_SEGMENT, share / 2)) c->edge = edge;
    const int32_t window = tcp_distance(c->received, c->edge);
    return window <= 0 ? 0 : (uint16_t)tcp_smaller((uint32_t)window, TCP_WINDOW_MAX);
}

/* The window is wide open again, and the peer does not know. */
static bool tcp_window_is_news(const struct tcp_connection *c) {
    const uint32_t share = tcp_share(), waiting = c->received - c->delivered;
    const int32_t offered = tcp_distance(c->received, c->edge);
    return offered < (int32_t)(share / 4) && waiting <= share / 4 && !c->peer_done;
}

/* How many bytes the next segment from `offset` on carries; 0: none may leave, or it is not worth it yet. */
static uint32_t tcp_sendable(const struct tcp_connection *c, uint32_t offset) {
    const uint32_t rest = c->queue.len - offset, allowed = tcp_allowed(c);
    const uint32_t room = allowed > offset ? allowed - offset : 0;
    const uint32_t len = tcp_smaller(tcp_smaller(rest, room), c->mss);
    if (len == rest || len == c->mss || len >= c->window_max / 2) return len;
    return offset == 0 && c->window >= rest ? len : 0; /* the congestion window is smaller than a segment */
}

static bool tcp_plan_opening(struct tcp_connection *c, struct tcp_plan *p) {
    if (c->next != c->una) return false;
    *p = (struct tcp_plan){c->una, 0, TCP_SYN | TCP_ACK, false, c->sent != c->una};
    c->next = c->una + 1;
    return true;
}

/* Who ends first has to be there for a while when both have ended. */
static void tcp_plan_fin(struct tcp_connection *c, struct tcp_plan *p) {
    p->flags |= TCP_FIN;
    c->lasts |= !c->peer_done;
}

/* The first segment again, as far as the window allows: one byte asks whether it is still closed. Where it is, the peer drops
 * that byte, so it is the next one still. */
static bool tcp_plan_aside(struct tcp_connection *c, struct tcp_plan *p) {
    const uint32_t len = tcp_smaller(c->queue.len, tcp_smaller(c->mss, c->window ? c->window : 1));
    const bool asks = len && c->window == 0;
    const bool fin = c->finishing && !c->fin_acked && len == c->queue.len;
    c->repeat = false;
    if (len == 0 && !fin) return false;
    *p = (struct tcp_plan){c->una, len, TCP_ACK, true, tcp_distance(c->una, c->sent) > 0};
    if (fin) tcp_plan_fin(c, p);
    if (!asks && tcp_distance(c->next, c->una + len + fin) > 0) c->next = c->una + len + fin;
    return true;
}

/* Takes the next segment out of what is due. */
static bool tcp_plan_next(struct tcp_connection *c, struct tcp_plan *p) {
    if (c->state == TCP_OPENING) return tcp_plan_opening(c, p);
    if (c->repeat && tcp_plan_aside(c, p)) {
        c->ack_due = false;
        return true;
    }
    const uint32_t fin_at = c->una + c->queue.len, from = c->next;
    const uint32_t len = tcp_distance(from, fin_at) > 0 ? tcp_sendable(c, from - c->una) : 0;
    const bool fin = c->finishing && !c->fin_acked && from + len == fin_at;
    if (len == 0 && !fin && !c->ack_due) return false;
    *p = (struct tcp_plan){from, len, TCP_ACK, false, tcp_distance(from, c->sent) > 0 && (len || fin)};
    if (fin) tcp_plan_fin(c, p);
    if (len && from + len == fin_at) p->flags |= TCP_PSH;
    c->next = from + len + fin;
    c->ack_due = false;
    return true;
}

/* Takes note of what has left. */
static void tcp_has_left(struct tcp_connection *c, const struct tcp_plan *p) {
    const uint32_t numbers = p->len + ((p->flags & (TCP_FIN | TCP_SYN)) != 0);
    if (p->again) tcp_repeated.value++;
    if (numbers == 0) return;
    if (!p->again && !p->aside && c->timed_ns == 0) {
        c->timed_ns = tcp_now;
        c->timed = p->seq + numbers;
    }
    if (tcp_distance(c->sent, p->seq + numbers) > 0) c->sent = p->seq + numbers;
    if (c->deadline_ns == 0) tcp_set_deadline(c, tcp_rto_ms(c));
}

static uint32_t tcp_write_options(const struct tcp_connection *c, uint8_t *at) {
    tcp_put16(at, 0x0204);
    tcp_put16(at + 2, EDGEOS_TCP_SEGMENT - (c->headers.v6 ? 20 : 0));
    if (c->scale == TCP_NO_SCALE) return 4;
    tcp_put32(at + 4, 0x01030300); /* a scale of 0: the window needs none, but the peer's may */
    return 8;
}

/* Writes a segment as a frame; returns its bytes. */
static uint32_t tcp_write_plan(struct tcp_connection *c, const struct tcp_plan *p, uint8_t *frame) {
    uint8_t *behind = frame + tcp_headers_len(&c->headers);
    struct tcp_outgoing o = {.seq = p->seq, .ack = c->received, .len = p->len, .flags = p->flags};
    if (p->flags & TCP_SYN) o.options = (uint8_t)tcp_write_options(c, behind);
    tcp_queue_copy(&c->queue, p->seq - c->una, behind, p->len);
    o.window = tcp_offer_window(c);
    return tcp_write(frame, &c->headers, &o, tcp_sum(behind, o.options + p->len));
}

static bool tcp_no_room; /* the host takes no more in this burst */

static bool tcp_emit(const uint8_t *frame, uint32_t len) {
    tcp_no_room = tcp_no_room || edgeos_import_emit(edgeos_current, EDGEOS_BACK, frame, len) != 0;
    return !tcp_no_room;
}

static uint8_t tcp_frame[TCP_HEADERS_MAX + 8 + EDGEOS_TCP_SEGMENT];

/* The host has no room: what was planned is due again soon. */
static void tcp_put_off(struct tcp_connection *c, const struct tcp_plan *p) {
    if (c->state == TCP_OVER) return; /* the peer's end will come again, and its time must not begin anew */
    if (p->aside) {
        c->repeat = true;
        if (tcp_distance(c->sent, c->next) > 0) c->next = c->sent; /* the plan was ahead */
    } else if (tcp_distance(p->seq, c->next) > 0) {
        c->next = p->seq;
    }
    c->ack_due = true;
    tcp_set_deadline(c, TCP_AGAIN_MS);
    c->refused = true;
}

/* Sends what is due. With a slot, the last segment is left in it: returns the bytes of that frame, 0 when there is none. */
static uint32_t tcp_output(struct tcp_connection *c, uint8_t *slot) {
    uint8_t *frame = slot ? slot : tcp_frame;
    struct tcp_plan plan, written = {0};
    uint32_t len = 0;
    if (c->state == TCP_OPEN && tcp_window_is_news(c)) c->ack_due = true;
    while (tcp_plan_next(c, &plan)) {
        if (tcp_no_room && !slot) { /* thousands of connections may find out in vain what they would send */
            tcp_put_off(c, &plan);
            return 0;
        }
        if (len && !tcp_emit(frame, len)) {
            tcp_put_off(c, &plan);
            tcp_put_off(c, &written);
            return 0;
        }
        if (len) tcp_has_left(c, &written);
        len = tcp_write_plan(c, &plan, frame);
        written = plan;
    }
    if (len && !slot && !tcp_emit(frame, len)) {
        tcp_put_off(c, &written);
        return 0;
    }
    if (len) tcp_has_left(c, &written);
    if (c->deadline_ns == 0 && tcp_end(c) != c->una) tcp_set_deadline(c, tcp_rto_ms(c)); /* a closed window */
    return slot ? len : 0;
}

/* ---- Segments that belong to no connection's stream ---- */

/* A reset, in the slot of the segment that it answers, or none for a reset. Returns the bytes of the frame. */
static uint32_t tcp_reset(const struct tcp_segment *s) {
    if (s->flags & TCP_RST) return 0;
    struct tcp_headers headers;
    tcp_headers_back(&headers, s);
    struct tcp_outgoing o = {.flags = TCP_RST};
    if (s->flags & TCP_ACK) {
        o.seq = s->ack;
    } else {
        o.flags |= TCP_ACK;
        o.ack = s->seq + s->len + ((s->flags & TCP_SYN) != 0) + ((s->flags & TCP_FIN) != 0);
    }
    return tcp_write(s->frame, &headers, &o, 0);
}

/* A reset of a connection that is given up. */
static void tcp_emit_reset(struct tcp_connection *c) {
    struct tcp_outgoing o = {.seq = c->sent, .ack = c->received, .flags = TCP_RST | TCP_ACK};
    tcp_emit(tcp_frame, tcp_write(tcp_frame, &c->headers, &o, 0));
}

#endif /* TCP_OUTPUT_H */
