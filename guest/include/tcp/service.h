/* service.h: the connections as the service sees them: messages to it, and what it asks for. */
#ifndef TCP_SERVICE_H
#define TCP_SERVICE_H

static struct tcp_connection *tcp_served; /* whose message the service is handling */
static bool tcp_starved;                  /* somebody waits for memory that others have */

static void tcp_finish(struct tcp_connection *c) {
    c->finishing = true;
    tcp_mark(c);
}

static void tcp_abandon(struct tcp_connection *c) {
    c->abandoned = true;
    tcp_finish(c);
    if (c->fin_acked) tcp_set_deadline(c, TCP_LINGER_MS);
}

/* As many of the bytes as there is room for. */
static uint32_t tcp_take(struct tcp_connection *c, const uint8_t *data, uint32_t len, uint32_t limit, uint32_t spare) {
    const uint32_t room = limit > c->queue.len ? limit - c->queue.len : 0;
    const uint32_t taken = tcp_queue_add(&c->queue, data, tcp_smaller(len, room), spare);
    if (taken) tcp_mark(c);
    return taken;
}

/* A connection that takes bytes of the service's. */
static struct tcp_connection *tcp_find_for_service(uint64_t flow) {
    struct tcp_connection *c = tcp_find(flow);
    return c && c->state == TCP_OPEN && !c->abandoned ? c : NULL;
}

static inline int32_t edgeos_send(uint64_t flow, const void *data, uint32_t len) {
    struct tcp_connection *c = tcp_find_for_service(flow);
    if (!c || c->finishing) return -1;
    const uint32_t taken = tcp_take(c, data, len, tcp_share(), TCP_RESERVED_BLOCKS);
    if (taken < len) c->wants_room = tcp_starved = true;
    return (int32_t)taken;
}

static inline int32_t edgeos_finish(uint64_t flow) {
    struct tcp_connection *c = tcp_find_for_service(flow);
    if (!c) return -1;
    tcp_finish(c);
    return 0;
}

static inline int32_t edgeos_close(uint64_t flow) {
    struct tcp_connection *c = tcp_find_for_service(flow);
    if (!c) return -1;
    tcp_abandon(c);
    return 0;
}

static inline int32_t edgeos_forward(uint64_t flow, int port, const void *data, uint32_t len) {
    (void)flow, (void)port, (void)data, (void)len;
    return -1;
}

static inline int32_t edgeos_forward_finish(uint64_t flow, int port) {
    (void)flow, (void)port;
    return -1;
}

/* All or nothing, to the connection whose message is being handled. */
static inline int edgeos_emit(int port, const void *data, uint32_t len) {
    struct tcp_connection *c = tcp_served;
    if (port != EDGEOS_BACK || !c || c->abandoned || c->finishing) return -1;
    const uint32_t share = tcp_share(), blocks = tcp_unused_blocks();
    if (c->queue.len + len > share || (len + TCP_BLOCK_BYTES - 1) / TCP_BLOCK_BYTES + TCP_RESERVED_BLOCKS > blocks) return -1;
    tcp_take(c, data, len, share, TCP_RESERVED_BLOCKS);
    return 0;
}

/* Whether all that the service may answer to one message has room. */
static inline bool tcp_takes_answers(const struct tcp_connection *c) {
    if (tcp_unused_blocks() < TCP_RESERVED_BLOCKS) tcp_starved = true;
    return c->queue.len < tcp_share() && tcp_unused_blocks() >= TCP_RESERVED_BLOCKS;
}

/* Tells the service something, and does what its verdict says. */
static void tcp_tell(struct tcp_connection *c, uint8_t kind, uint8_t *data, uint32_t len, uint32_t capacity) {
    edgeos_message m = {.data = data, .len = len, .capacity = capacity, .kind = kind, .flow = c->flow, .time_ns = tcp_now};
    tcp_served = c;
    const int verdict = edgeos_handle(&m);
    tcp_served = NULL;
    if (verdict != EDGEOS_BACK && verdict != EDGEOS_DROP && verdict != EDGEOS_DONE) __builtin_trap();
    if (verdict != EDGEOS_BACK || c->abandoned || kind == EDGEOS_CLOSED) return;
    if (kind == EDGEOS_HALF_CLOSED) tcp_finish(c);
    if (kind != EDGEOS_DATA || c->finishing) return;
    if (m.len > EDGEOS_SLOT_SIZE) __builtin_trap();
    tcp_take(c, m.data, m.len, UINT32_MAX, 0);
}

/* The two ends, as a listener tells them; addresses and ports stand in the headers as those of the way back. */
static void tcp_tell_open(struct tcp_connection *c) {
    static edgeos_endpoints ends;
    const uint8_t *ip = c->headers.bytes + c->headers.link, *ports = ip + (c->headers.v6 ? 40 : 20);
    __builtin_memset(&ends, 0, sizeof ends);
    ends.family = c->headers.v6 ? 6 : 4;
    ends.transport = 6;
    ends.local_port = tcp_get16(ports);
    ends.peer_port = tcp_get16(ports + 2);
    const uint32_t bytes = c->headers.v6 ? 16 : 4;
    if (!c->headers.v6) ends.local[10] = ends.local[11] = ends.peer[10] = ends.peer[11] = 0xff;
    __builtin_memcpy(ends.local + 16 - bytes, ip + (c->headers.v6 ? 8 : 12), bytes);
    __builtin_memcpy(ends.peer + 16 - bytes, ip + (c->headers.v6 ? 24 : 16), bytes);
    tcp_opened.value++;
    tcp_tell(c, EDGEOS_OPEN, (uint8_t *)&ends, sizeof ends, sizeof ends);
}

/* Bytes that came in order. What the service has closed, nobody reads. */
static void tcp_tell_data(struct tcp_connection *c, uint8_t *data, uint32_t len, uint32_t capacity) {
    c->delivered += len;
    if (!c->abandoned) tcp_tell(c, EDGEOS_DATA, data, len, capacity);
}

static void tcp_tell_stored(struct tcp_connection *c) {
    while (c->stored != TCP_NO_BLOCK && (c->abandoned || tcp_takes_answers(c))) {
        struct tcp_block *b = &tcp.blocks[c->stored];
        if (tcp_distance(c->delivered, b->seq) > 0) return; /* a hole in front of it */
        tcp_tell_data(c, b->bytes, b->len, TCP_BLOCK_BYTES);
        tcp_store_drop_first(&c->stored);
    }
}

/* Enough memory that it is worth telling who waits for it. */
static inline bool tcp_has_room(void) { return tcp_unused_blocks() > 2 * TCP_RESERVED_BLOCKS; }

/* Tells the service what has become due: that there is room, what had to wait, the peer's end. */
static void tcp_serve(struct tcp_connection *c) {
    if (c->state != TCP_OPEN) return;
    if (c->wants_room && !c->abandoned && c->queue.len <= tcp_share() / 2) {
        c->wants_room = !tcp_has_room();
        if (c->wants_room) tcp_starved = true;
        else tcp_tell(c, EDGEOS_ROOM, NULL, 0, 0);
    }
    tcp_tell_stored(c);
    if (c->peer_done && !c->told_half && c->delivered == c->fin) {
        c->told_half = true;
        c->delivered++;
        if (!c->abandoned) tcp_tell(c, EDGEOS_HALF_CLOSED, NULL, 0, 0);
    }
}

#endif /* TCP_SERVICE_H */
