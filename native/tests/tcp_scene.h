/* tcp_scene.h: a scene with the guest's own TCP, played segment by segment: what a client says, and what leaves thereupon. */
#ifndef TEST_TCP_SCENE_H
#define TEST_TCP_SCENE_H

#include "tcp_service.h"

#define MILLISECOND_NS 1000000u

/* What a client knows of its end. */
typedef struct client {
    uint64_t flow; /* as the host names it */
    path path;
    uint32_t seq, ack;
    uint16_t window;
} client;

static struct {
    path path;
    segment segment;
    uint8_t data[SEGMENT_DATA_MAX];
} sent[256];
static uint32_t sent_count;

static int (*service)(ledger *l, edgeos_message *m);

static int service_event(ledger *l, edgeos_message *m) { return service(l, m); }

static void host_sent(const uint8_t *frame, uint32_t len) {
    HOST_CHECK(sent_count < 256);
    segment *s = &sent[sent_count].segment;
    segment_read(frame, len, &sent[sent_count].path, s);
    memcpy(sent[sent_count].data, s->data, s->len);
    s->data = sent[sent_count++].data;
}

static inline void bring(client *c, uint8_t flags, uint32_t len) {
    uint8_t frame[EDGEOS_SLOT_SIZE], data[SEGMENT_DATA_MAX];
    stream_fill(data, c->path.port, c->seq, len);
    const segment s = {.seq = c->seq, .ack = flags & FLAG_ACK ? c->ack : 0, .len = len, .window = c->window, .scale = -1,
                       .mss = flags & FLAG_SYN ? 1460 : 0, .flags = flags, .data = data};
    host_receive(c->flow, frame, segment_write(frame, &c->path, &s));
}

/* Brings a segment in, and everything that leaves thereupon is in `sent`. */
static inline void say(client *c, uint8_t flags, uint32_t len) {
    sent_count = 0;
    bring(c, flags, len);
    host_run();
}

/* Time goes on, and the timer rings when it is due. */
static inline void wait_ms(uint32_t ms) {
    const uint64_t until = host.now + (uint64_t)ms * MILLISECOND_NS;
    sent_count = 0;
    while (host.alarm <= until) {
        host.now = host.alarm > host.now ? host.alarm : host.now;
        host_ring();
    }
    host.now = until;
}

static inline client make_client(uint64_t flow) {
    const client c = {.flow = flow, .path = {.family = 4, .port = (uint16_t)(40000 + flow)}, .seq = 1000, .window = 60000};
    ledger_clear(&ledgers[flow]);
    ledgers[flow].path = c.path;
    ledgers[flow].origin = c.seq + 1;
    return c;
}

static inline client connect_client(uint64_t flow) {
    client c = make_client(flow);
    say(&c, FLAG_SYN, 0);
    HOST_CHECK(sent_count == 1 && sent[0].segment.flags == (FLAG_SYN | FLAG_ACK) && sent[0].segment.ack == 1001);
    c.seq = 1001, c.ack = sent[0].segment.seq + 1;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(ledgers[flow].open && sent_count == 0);
    return c;
}

static inline void begin(const char *scene, int (*wanted)(ledger *, edgeos_message *)) {
    snprintf(host_scene, sizeof host_scene, "%s", scene);
    host_reset(1);
    ledgers_clear();
    service = wanted;
}

static inline int sink(ledger *l, edgeos_message *m) {
    (void)l, (void)m;
    return EDGEOS_DONE;
}

static inline int echo(ledger *l, edgeos_message *m) {
    (void)l, (void)m;
    return EDGEOS_BACK;
}

#endif /* TEST_TCP_SCENE_H */
