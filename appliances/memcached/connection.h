/* connection.h: one client connection: what of its input waits, the value it is sending, and the output it has not
 * taken.
 *
 * Answers are collected in one small buffer. What it holds when a message has been dealt with takes that message's place
 * and goes back by verdict; what does not fit is sent before. When the kernel takes only a part, the rest waits here: short
 * pieces as copies, values as references to their items. Until it has left, no more commands of this connection are read;
 * what comes in meanwhile is held, up to HELD_MAX.
 */
#ifndef MEMCACHED_CONNECTION_H
#define MEMCACHED_CONNECTION_H

#include "items.h"

#define HELD_MAX (1024u * 1024u) /* bytes of input that one connection may have waiting */
#define HELD_FIRST 256u
#define OUT_SIZE 1408u
#define OUT_COPY_MAX 1100u /* longer values are not copied into the buffer */
#define HEAD_SIZE 512u     /* a line with a key in base64, numbers and an opaque, or a binary header with a key */
#define UDP_HEADER 8u
#define UDP_PAYLOAD 1392u
#define OPAQUE_MAX 32

enum protocol { UNDECIDED, TEXT, BINARY };

/* Output that the kernel did not take. */
struct unsent {
    struct unsent *next;
    struct item *item; /* that the bytes belong to; 0 = they are a copy behind this */
    const uint8_t *at;
    uint32_t len;
};

/* A command whose value is still coming. */
struct upload {
    struct item *item;
    uint32_t filled, needed; /* bytes of the value, from the wire */
    enum how how;
    bool meta, may_be_stale, no_reply;
    uint8_t opaque_len;
    uint8_t opaque[OPAQUE_MAX];
    uint8_t wanted[3], wanted_count; /* flags of `ms` to answer, in their order */
};

struct binary_header {
    uint8_t magic, opcode;
    uint16_t key_len;
    uint8_t extras_len, data_type;
    uint16_t status;
    uint32_t body_len, opaque;
    uint64_t cas;
};
_Static_assert(sizeof(struct binary_header) == 24, "as on the wire");

/* What every command needs lies together at the front: with many caches on a machine, each line of memory is a cold one. */
struct connection {
    struct connection *next; /* of its bucket */
    uint32_t last_command;
    uint64_t flow;
    enum protocol protocol;
    bool datagram, closing, no_reply, dead;
    bool ended; /* the client sends no more */
    uint16_t udp_request;
    uint32_t swallow;  /* bytes to read over */
    uint32_t searched; /* of the input, bytes known to have no line end */
    uint8_t *held;
    uint32_t held_len, held_capacity;
    struct unsent *unsent, *unsent_last;
    struct upload upload;
    struct binary_header header;
    edgeos_endpoints ends;
};

static struct {
    uint8_t bytes[OUT_SIZE];
    uint32_t len;
} out;

/* ---- Sending ---- */

static void unsent_add(struct connection *c, struct item *item, const uint8_t *at, uint32_t len) {
    if (item && item->references >= REFERENCES_MAX) item = 0;
    if (item) item->references++;
    struct unsent *u = take_memory((uint32_t)sizeof *u + (item ? 0 : len));
    if (!u) {
        if (item) item_release(item);
        c->dead = true; /* an answer with a hole would be worse */
        return;
    }
    *u = (struct unsent){0, item, at, len};
    if (!item) {
        memcpy(u + 1, at, len);
        u->at = (const uint8_t *)(u + 1);
    }
    *(c->unsent ? &c->unsent_last->next : &c->unsent) = u;
    c->unsent_last = u;
}

static void unsent_drop(struct connection *c) {
    struct unsent *u = c->unsent;
    c->unsent = u->next;
    if (u->item) item_release(u->item);
    arena_give(u);
}

/* Offers bytes to the kernel; returns how many it took. */
static uint32_t offer(struct connection *c, const uint8_t *at, uint32_t len) {
    int32_t taken = edgeos_send(c->flow, at, len);
    if (taken < 0) c->dead = true;
    if (taken <= 0) return 0;
    stats.bytes_written += (uint32_t)taken;
    return (uint32_t)taken;
}

static void out_flush(struct connection *c) {
    if (!out.len) return;
    uint32_t len = out.len;
    out.len = 0;
    uint32_t taken = c->dead ? len : c->unsent ? 0 : offer(c, out.bytes, len);
    if (taken < len && !c->dead) unsent_add(c, 0, out.bytes + taken, len - taken);
}

static void send_bytes(struct connection *c, struct item *item, const uint8_t *at, uint32_t len) {
    if (out.len + len > OUT_SIZE || len > OUT_COPY_MAX) out_flush(c);
    if (len <= OUT_COPY_MAX) {
        memcpy(out.bytes + out.len, at, len);
        out.len += len;
        return;
    }
    uint32_t taken = c->dead ? len : c->unsent ? 0 : offer(c, at, len);
    if (taken < len && !c->dead) unsent_add(c, item, at + taken, len - taken);
}

/* Sends what waits, as far as the kernel takes it. */
static void unsent_continue(struct connection *c) {
    while (c->unsent && !c->dead) {
        struct unsent *u = c->unsent;
        uint32_t taken = offer(c, u->at, u->len);
        u->at += taken;
        u->len -= taken;
        if (u->len) return;
        unsent_drop(c);
    }
}

/* ---- One answer: a line or header that is built here, a value or other body, and an end ---- */

static struct {
    uint8_t head[HEAD_SIZE];
    uint8_t *at; /* behind what the head holds */
    struct item *item;
    const uint8_t *body;
    uint32_t body_len;
    const char *tail;
} reply = {.at = reply.head};

static void reply_begin(void) {
    reply.at = reply.head;
    reply.item = 0;
    reply.body_len = 0;
    reply.tail = "";
}

static void put(const void *from, uint32_t len) {
    memcpy(reply.at, from, len);
    reply.at += len;
}
static void put_text(const char *text) { put(text, (uint32_t)strlen(text)); }
static void put_number(uint64_t value) { reply.at = write_u64(reply.at, value); }

static void reply_body(struct item *item, const uint8_t *body, uint32_t len) {
    reply.item = item;
    reply.body = body;
    reply.body_len = len;
}

/* Copies `len` bytes of the answer from `from` on. */
static void reply_copy(uint8_t *to, uint32_t from, uint32_t len) {
    const uint32_t lens[3] = {(uint32_t)(reply.at - reply.head), reply.body_len, (uint32_t)strlen(reply.tail)};
    const uint8_t *parts[3] = {reply.head, reply.body, (const uint8_t *)reply.tail};
    for (int i = 0; i < 3 && len; i++) {
        if (from >= lens[i]) {
            from -= lens[i];
            continue;
        }
        uint32_t part = lens[i] - from < len ? lens[i] - from : len;
        memcpy(to, parts[i] + from, part);
        to += part;
        len -= part;
        from = 0;
    }
}

/* An answer over UDP: datagrams of at most 1,400 bytes, each with the number of the request, its place and how many
   there are. */
static void reply_datagrams(struct connection *c) {
    uint32_t len = (uint32_t)(reply.at - reply.head) + reply.body_len + (uint32_t)strlen(reply.tail);
    uint32_t total = (len + UDP_PAYLOAD - 1) / UDP_PAYLOAD;
    if (total > 65535) total = 65535;
    for (uint32_t i = 0; i < total; i++) {
        uint32_t part = len - i * UDP_PAYLOAD < UDP_PAYLOAD ? len - i * UDP_PAYLOAD : UDP_PAYLOAD;
        const uint16_t fields[4] = {c->udp_request, (uint16_t)i, (uint16_t)total, 0};
        for (int f = 0; f < 4; f++) {
            out.bytes[2 * f] = (uint8_t)(fields[f] >> 8);
            out.bytes[2 * f + 1] = (uint8_t)fields[f];
        }
        reply_copy(out.bytes + UDP_HEADER, i * UDP_PAYLOAD, part);
        offer(c, out.bytes, UDP_HEADER + part); /* what is not taken is lost, as datagrams are */
    }
}

static void reply_end(struct connection *c) {
    if (c->datagram) {
        reply_datagrams(c);
    } else {
        send_bytes(c, 0, reply.head, (uint32_t)(reply.at - reply.head));
        if (reply.body_len) send_bytes(c, reply.item, reply.body, reply.body_len);
        if (*reply.tail) send_bytes(c, 0, (const uint8_t *)reply.tail, (uint32_t)strlen(reply.tail));
    }
    reply_begin();
}

/* ---- Connections by their flow ---- */

#define CONNECTION_BUCKETS 16u

static struct connection *connections[CONNECTION_BUCKETS];
static uint32_t connection_count, connections_most;

static struct connection **connection_place(uint64_t flow) {
    struct connection **at = &connections[flow % CONNECTION_BUCKETS];
    while (*at && (*at)->flow != flow) at = &(*at)->next;
    return at;
}

static void upload_end(struct connection *c) {
    if (c->upload.item) item_release(c->upload.item);
    memset(&c->upload, 0, sizeof c->upload);
}

static void held_end(struct connection *c) {
    arena_give(c->held);
    c->held = 0;
    c->held_len = c->held_capacity = c->searched = 0;
}

static void connection_clear(struct connection *c) {
    upload_end(c);
    held_end(c);
    while (c->unsent) unsent_drop(c);
}

static struct connection *connection_open(uint64_t flow) {
    struct connection *c = take_memory(sizeof *c);
    if (!c) return 0;
    memset(c, 0, sizeof *c);
    c->flow = flow;
    c->last_command = now;
    struct connection **bucket = &connections[flow % CONNECTION_BUCKETS];
    c->next = *bucket;
    *bucket = c;
    stats.total_connections++;
    if (++connection_count > connections_most) connections_most = connection_count;
    return c;
}

static void connection_end(struct connection *c) {
    *connection_place(c->flow) = c->next;
    connection_count--;
    connection_clear(c);
    arena_give(c);
}

/* Keeps input for later. False: there is too much of it. */
static bool held_add(struct connection *c, const uint8_t *at, uint32_t len) {
    if (c->held_len + len > HELD_MAX) return false;
    if (c->held_len + len > c->held_capacity) {
        uint32_t capacity = c->held_capacity ? c->held_capacity : HELD_FIRST;
        while (capacity < c->held_len + len) capacity *= 2;
        uint8_t *larger = take_memory(capacity);
        if (!larger) return false;
        memcpy(larger, c->held, c->held_len);
        arena_give(c->held);
        c->held = larger;
        c->held_capacity = capacity;
    }
    memcpy(c->held + c->held_len, at, len);
    c->held_len += len;
    return true;
}

/* Removes the first `len` bytes of what is held; room that is much too large is given back. */
static void held_remove(struct connection *c, uint32_t len) {
    c->held_len -= len;
    if (c->held_len) {
        memmove(c->held, c->held + len, c->held_len);
    } else {
        held_end(c);
    }
}

#endif
