/* tcp_link.h: the network between the guest and its clients: it loses, doubles, delays, reorders and spoils frames. What
 * the guest sends is first held against its ledger and what the client has said, so nothing that is wrong goes unseen.
 */
#ifndef TEST_TCP_LINK_H
#define TEST_TCP_LINK_H

#include "tcp_peer.h"

#define LINK_FRAMES_MAX 4096u
#define PEERS_MAX 8u
#define LATE_FLOWS (HOST_FLOWS / 2)

typedef struct flying {
    uint64_t at, number;
    peer *to; /* NULL: to the guest */
    peer *from;
    uint32_t len;
    uint8_t frame[EDGEOS_SLOT_SIZE];
} flying;

static struct {
    uint32_t lost, doubled, late, spoiled; /* of 1,000 frames */
    uint64_t delay, jitter;
    uint64_t number;
    uint32_t count, data_sent, data_again, resets;
    bool tells;
    flying *frames[LINK_FRAMES_MAX]; /* a heap, the next one in front */
    bool (*loses)(bool to_guest, const uint8_t *frame, uint32_t len); /* asked before chance, if set */
} wire;

static peer peers[PEERS_MAX];
static uint32_t peer_count;

static bool link_before(const flying *a, const flying *b) {
    return a->at < b->at || (a->at == b->at && a->number < b->number);
}

static void link_swap(uint32_t a, uint32_t b) {
    flying *kept = wire.frames[a];
    wire.frames[a] = wire.frames[b];
    wire.frames[b] = kept;
}

static void link_push(flying *f) {
    HOST_CHECK(wire.count < LINK_FRAMES_MAX);
    wire.frames[wire.count] = f;
    for (uint32_t i = wire.count++; i && link_before(wire.frames[i], wire.frames[(i - 1) / 2]); i = (i - 1) / 2)
        link_swap(i, (i - 1) / 2);
}

static flying *link_pop(void) {
    flying *first = wire.frames[0];
    wire.frames[0] = wire.frames[--wire.count];
    for (uint32_t i = 0, next; (next = 2 * i + 1) < wire.count; i = next) {
        if (next + 1 < wire.count && link_before(wire.frames[next + 1], wire.frames[next])) next++;
        if (!link_before(wire.frames[next], wire.frames[i])) break;
        link_swap(i, next);
    }
    return first;
}

static void link_reset(void) {
    while (wire.count) free(link_pop());
    memset(&wire, 0, sizeof wire);
    for (peer *p = peers; p < peers + PEERS_MAX; p++) free(p->have);
    memset(peers, 0, sizeof peers);
    peer_count = 0;
}

static void link_put(peer *from, peer *to, const uint8_t *frame, uint32_t len, uint64_t delay) {
    flying *f = malloc(sizeof *f);
    HOST_CHECK(f);
    *f = (flying){.at = host.now + delay, .number = wire.number++, .from = from, .to = to, .len = len};
    memcpy(f->frame, frame, len);
    /* One bit, which every checksum finds; addresses of the link layer have none, and tags and hop limits neither. */
    if (host_chance(wire.spoiled)) f->frame[len - 20 + host_random(20)] ^= (uint8_t)(1 << host_random(8));
    link_push(f);
}

static void link_send(peer *from, peer *to, const uint8_t *frame, uint32_t len) {
    if ((wire.loses && wire.loses(to == NULL, frame, len)) || host_chance(wire.lost)) return;
    const uint32_t jitter = (uint32_t)wire.jitter;
    uint64_t delay = wire.delay + (jitter ? host_random(jitter) : 0);
    if (host_chance(wire.late)) delay += wire.delay + host_random(10 * MILLISECOND_NS);
    link_put(from, to, frame, len, delay);
    if (host_chance(wire.doubled)) link_put(from, to, frame, len, delay + host_random(1 + (uint32_t)wire.delay));
}

static peer *peer_at(uint16_t port) {
    for (peer *p = peers; p < peers + peer_count; p++)
        if (p->path.port == port) return p;
    host_fail(__FILE__, __LINE__, "a segment for a client that is not there");
}

/* What the guest sends belongs to its stream, acknowledges what was sent, and keeps to the windows of both sides. */
static void check_sent(peer *p, const segment *s) {
    const ledger *l = &ledgers[p->flow];
    const uint32_t acked = s->ack - p->iss;
    HOST_CHECK(s->flags & FLAG_ACK && acked <= p->sent_max && acked >= p->guest_acked);
    p->guest_acked = acked;
    const bool scaled = !(s->flags & FLAG_SYN) && p->scale >= 0 && p->guest_scale >= 0;
    const uint32_t edge = acked + ((uint32_t)s->window << (scaled ? p->guest_scale : 0));
    HOST_CHECK(edge + (scaled ? (1u << p->guest_scale) - 1 : 0) >= p->guest_edge); /* no window shrinks */
    p->guest_edge = most(p->guest_edge, edge);
    if (s->flags & FLAG_SYN) {
        HOST_CHECK(s->len == 0 && (p->guest_sent == 0 || s->seq == p->irs) && s->mss);
        HOST_CHECK(p->scale >= 0 || s->scale < 0); /* offered only to who has offered it */
        p->irs = s->seq, p->guest_scale = s->scale;
        p->guest_sent = most(p->guest_sent, 1);
        return;
    }
    const uint32_t at = s->seq - p->irs, end = at + s->len;
    HOST_CHECK(p->guest_sent && at <= p->guest_sent);
    HOST_CHECK(s->len <= least(p->mss, EDGEOS_TCP_SEGMENT));
    HOST_CHECK(s->len == 0 || (at >= 1 && end - 1 <= l->sent_len && !memcmp(s->data, l->sent + at - 1, s->len)));
    HOST_CHECK(end + (s->flags & FLAG_FIN) <= p->told + 1); /* one byte may ask whether the window is still closed */
    if (s->flags & FLAG_FIN) HOST_CHECK((l->finished || l->left) && end == l->sent_len + 1);
    wire.data_sent += s->len;
    if (end <= p->guest_sent) wire.data_again += s->len;
    p->guest_sent = most(p->guest_sent, end + ((s->flags & FLAG_FIN) != 0));
}

/* For a person who looks into a failed seed. */
static void link_tell(const char *what, const peer *p, const segment *s) {
    if (!wire.tells) return;
    const bool to_guest = what[0] == '>';
    fprintf(stderr, "%10.6f %s %u %s%s%s seq %u len %u ack %u window %u\n", (double)(host.now - HOST_START_NS) / 1e9,
            what, p->path.port, s->flags & FLAG_SYN ? "S" : "", s->flags & FLAG_FIN ? "F" : "",
            s->flags & FLAG_RST ? "R" : "", s->seq - (to_guest ? p->iss : p->irs), s->len,
            s->ack - (to_guest ? p->irs : p->iss), s->window);
}

static void peer_emit(peer *p, const uint8_t *frame, uint32_t len, const segment *s) {
    link_tell(">", p, s);
    link_send(p, NULL, frame, len);
}

static void host_sent(const uint8_t *frame, uint32_t len) {
    path way;
    segment s;
    segment_read(frame, len, &way, &s);
    peer *p = peer_at(way.port);
    HOST_CHECK(way.family == p->path.family && way.tagged == p->path.tagged);
    link_tell("<", p, &s);
    if (s.flags & FLAG_RST) wire.resets++;
    else if (!host.ended[p->flow]) check_sent(p, &s);
    link_send(NULL, p, frame, len);
}

static void link_deliver(flying *f) {
    path way;
    segment s;
    if (f->to == NULL) {
        ledger *l = &ledgers[f->from->flow];
        l->path = f->from->path;
        l->origin = f->from->iss + 1;
        /* A flow that is over is forgotten, and what is late is of a new one. */
        host_receive(host.ended[l->flow] ? LATE_FLOWS + l->flow : l->flow, f->frame, f->len);
    } else if (segment_is_sound(f->frame, f->len)) {
        segment_read(f->frame, f->len, &way, &s);
        peer_receive(f->to, &s);
    }
    free(f);
}

static uint64_t link_next_ns(void) {
    uint64_t next = wire.count ? wire.frames[0]->at : HOST_NEVER;
    for (peer *p = peers; p < peers + peer_count; p++)
        if (peer_next_ns(p) < next) next = peer_next_ns(p);
    return host.alarm < next ? host.alarm : next;
}

/* What is next to happen, and all that happens at about that time. False when nothing ever will. */
static bool link_step(void) {
    const uint64_t next = link_next_ns();
    if (next == HOST_NEVER) return false;
    if (next > host.now) host.now = next;
    while (wire.count && wire.frames[0]->at <= host.now) link_deliver(link_pop());
    host_run();
    for (peer *p = peers; p < peers + peer_count; p++) peer_wake(p);
    host_ring();
    return true;
}

#endif /* TEST_TCP_LINK_H */
