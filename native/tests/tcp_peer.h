/* tcp_peer.h: a client's end of a connection, written apart from the guest's TCP: go-back-N with fast retransmission,
 * delayed acknowledgements, a window that a slow reader closes. What both ends say is checked before the link may lose it.
 *
 * Positions count from the initial sequence number: 0 is the SYN, 1 the first byte. The program that includes this
 * defines peer_emit(), which gets each frame of the client.
 */
#ifndef TEST_TCP_PEER_H
#define TEST_TCP_PEER_H

#include "tcp_service.h"

#define PEER_STREAM_MAX (1u << 20)
#define MILLISECOND_NS 1000000u

typedef struct peer {
    /* Settings. */
    path path;
    uint64_t flow;
    uint32_t iss, total; /* bytes to send */
    uint32_t mss, flight_max, window_max, read_chunk;
    uint64_t read_every;
    int8_t scale;
    uint8_t options;
    bool fin_waits; /* for the service's */
    /* Sending. */
    uint32_t una, next, sent_max, edge, flight, duplicates, guest_mss;
    uint64_t rto_at, rto;
    uint32_t retransmits;
    int8_t guest_scale;
    /* Receiving. */
    uint32_t irs, got, read, told, fin_at, unacknowledged;
    uint64_t ack_at, read_at;
    uint8_t *have;
    bool synced, reset;
    /* What the guest has said. */
    uint32_t guest_acked, guest_edge, guest_sent;
} peer;

static void peer_emit(peer *p, const uint8_t *frame, uint32_t len, const segment *s);

static uint32_t peer_end(const peer *p) { return p->total + 2; }

static bool peer_has_all(const peer *p) { return p->fin_at && p->got > p->fin_at; }

static bool peer_is_done(const peer *p) { return p->una == peer_end(p) && peer_has_all(p); }

static bool peer_may_finish(const peer *p) { return !p->fin_waits || peer_has_all(p); }

/* The window to tell. Its right edge never moves back, and forth only by a step that is worth it (RFC 1122, 4.2.3.3). */
static uint16_t peer_window(peer *p) {
    const uint32_t held = p->got - p->read, room = held < p->window_max ? p->window_max - held : 0;
    const uint32_t step = least(p->mss, p->window_max / 2);
    if (p->told < p->got) p->told = p->got;
    if (p->got + room >= p->told + step) p->told = p->got + room;
    const uint32_t shift = p->synced && p->scale >= 0 && p->guest_scale >= 0 ? (uint32_t)p->scale : 0;
    const uint32_t field = least(((p->told - p->got) + (1u << shift) - 1) >> shift, 65535);
    p->told = p->got + (field << shift);
    return (uint16_t)field;
}

static void peer_segment(peer *p, uint32_t at, uint32_t len, uint8_t flags) {
    uint8_t frame[EDGEOS_SLOT_SIZE], data[SEGMENT_DATA_MAX];
    stream_fill(data, p->path.port, p->iss + at, len);
    segment s = {.seq = p->iss + at, .ack = p->synced ? p->irs + p->got : 0, .len = len, .window = peer_window(p),
                 .scale = -1, .flags = flags, .options = p->options, .data = data};
    if (p->synced) s.flags |= FLAG_ACK, p->unacknowledged = 0, p->ack_at = HOST_NEVER;
    if (flags & FLAG_SYN) s.mss = (uint16_t)p->mss, s.scale = p->scale;
    if (len < 6 && p->path.family == 4) s.padding = (uint8_t)(6 - len);
    const uint32_t frame_len = segment_write(frame, &p->path, &s);
    p->sent_max = most(p->sent_max, at + len + ((flags & (FLAG_SYN | FLAG_FIN)) != 0));
    peer_emit(p, frame, frame_len, &s);
}

static void peer_ack(peer *p) { peer_segment(p, p->next, 0, FLAG_ACK); }

/* Sends from a position what one segment takes; returns the position behind it. */
static uint32_t peer_send_at(peer *p, uint32_t at, uint32_t edge) {
    if (at == 0) {
        peer_segment(p, 0, 0, FLAG_SYN);
        return 1;
    }
    const uint32_t room = edge > at ? edge - at : 0;
    const uint32_t cut = host_chance(100) ? 1 + host_random(p->guest_mss) : p->guest_mss;
    const uint32_t len = least(least(cut, room), p->total + 1 - least(at, p->total + 1));
    const bool fin = at + len == p->total + 1 && len < room && peer_may_finish(p);
    if (len == 0 && !fin) return at;
    peer_segment(p, at, len, (uint8_t)((fin ? FLAG_FIN : 0) | (len ? FLAG_PSH : 0)));
    return at + len + fin;
}

static void peer_output(peer *p) {
    while (p->synced && p->next < p->edge && p->next - p->una < p->flight) {
        const uint32_t next = peer_send_at(p, p->next, p->edge);
        if (next == p->next) break;
        p->next = next;
    }
    const bool wants = p->una < p->total + 1 || (p->una < peer_end(p) && peer_may_finish(p));
    if (!wants) p->rto_at = HOST_NEVER;
    if (wants && p->rto_at == HOST_NEVER) p->rto_at = host.now + p->rto;
}

static void peer_start(peer *p) {
    p->have = calloc(PEER_STREAM_MAX, 1);
    HOST_CHECK(p->have);
    p->rto = 300 * (uint64_t)MILLISECOND_NS;
    p->rto_at = host.now + p->rto;
    p->ack_at = p->read_at = HOST_NEVER;
    p->guest_mss = 536, p->guest_scale = -1;
    p->flight = least(2 * p->guest_mss, p->flight_max);
    p->next = peer_send_at(p, 0, 1);
}

/* Again from what was not acknowledged, or one byte beyond a closed window. */
static void peer_time_out(peer *p) {
    p->rto = least((uint32_t)(p->rto / MILLISECOND_NS) * 2, 2000) * (uint64_t)MILLISECOND_NS;
    p->rto_at = host.now + p->rto;
    p->flight = most(p->flight / 2, p->guest_mss);
    p->duplicates = 0;
    p->retransmits += p->una == 0 || p->edge > p->una;
    p->next = most(p->una, p->synced);
    if (p->una == 0) p->next = peer_send_at(p, 0, 1);
    else if (p->edge <= p->una) peer_send_at(p, p->una, p->una + 1);
    else peer_output(p);
}

static void peer_acked(peer *p, const segment *s) {
    const uint32_t ack = s->ack - p->iss;
    const bool scaled = !(s->flags & FLAG_SYN) && p->guest_scale >= 0 && p->scale >= 0;
    const uint32_t edge = ack + ((uint32_t)s->window << (scaled ? p->guest_scale : 0));
    const bool says_nothing = s->len == 0 && !(s->flags & FLAG_SYN);
    const bool moved = edge > p->edge;
    p->edge = most(p->edge, edge);
    if (ack > p->una) {
        p->una = ack, p->next = most(p->next, ack), p->duplicates = 0;
        p->flight = least(p->flight + p->guest_mss, p->flight_max);
        p->rto = 300 * (uint64_t)MILLISECOND_NS, p->rto_at = HOST_NEVER;
    } else if (ack == p->una && !moved && says_nothing && p->next > p->una && ++p->duplicates == 3) {
        p->retransmits++;
        peer_send_at(p, p->una, p->edge);
    }
    if (moved && p->next == p->una) p->rto_at = HOST_NEVER;
}

static void peer_take(peer *p, const segment *s) {
    const uint32_t at = s->seq - p->irs, before = p->got;
    for (uint32_t i = 0; i < s->len; i++)
        if (at + i < p->told && at + i < PEER_STREAM_MAX) p->have[at + i] = 1;
    if (s->flags & FLAG_FIN) p->fin_at = at + s->len;
    while (p->got < PEER_STREAM_MAX && p->have[p->got]) p->got++;
    if (p->fin_at && p->got == p->fin_at) p->got++;
    if (p->got != before && p->read_at == HOST_NEVER) p->read_at = host.now + p->read_every;
    const bool in_order = p->got != before && at == before;
    if (!in_order || s->flags & FLAG_FIN || ++p->unacknowledged >= 2) peer_ack(p);
    else if (p->ack_at == HOST_NEVER) p->ack_at = host.now + 40u * MILLISECOND_NS;
}

/* A segment that the link has brought. */
static void peer_receive(peer *p, const segment *s) {
    if (s->flags & FLAG_RST) {
        p->reset = true;
        return;
    }
    if (!p->synced) {
        if (!(s->flags & FLAG_SYN)) return;
        p->synced = true;
        p->irs = s->seq, p->got = p->read = 1, p->told++; /* windows do not count the SYN */
        p->guest_mss = least(s->mss ? s->mss : 536, p->mss);
        p->guest_scale = s->scale;
        p->flight = least(2 * p->guest_mss, p->flight_max);
        peer_acked(p, s);
        peer_ack(p);
    } else {
        peer_acked(p, s);
        if (s->flags & FLAG_SYN) peer_ack(p);
        else if (s->len || s->flags & FLAG_FIN) peer_take(p, s);
        else if (s->seq - p->irs < p->got) peer_ack(p); /* asks whether the window is still closed */
    }
    peer_output(p);
}

static void peer_read(peer *p) {
    p->read = least(p->read + p->read_chunk, p->got);
    p->read_at = p->read < p->got ? host.now + p->read_every : HOST_NEVER;
    const uint32_t before = p->told;
    peer_window(p);
    if (p->told != before && !peer_has_all(p)) peer_ack(p);
}

static uint64_t peer_next_ns(const peer *p) {
    const uint64_t first = p->rto_at < p->ack_at ? p->rto_at : p->ack_at;
    return first < p->read_at ? first : p->read_at;
}

static void peer_wake(peer *p) {
    if (p->rto_at <= host.now) peer_time_out(p);
    if (p->ack_at <= host.now) peer_ack(p);
    if (p->read_at <= host.now) peer_read(p);
}

#endif /* TEST_TCP_PEER_H */
