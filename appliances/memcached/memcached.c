/* memcached: a cache of its own for each client, in the text, meta and binary protocols of memcached. See README.md.
 *
 * Reading order: arena.h (memory), keyed_hash.h, items.h (the cache), connection.h (input and output), text.h and binary.h
 * (protocols).
 */
#ifndef EDGEOS_TCP /* packets come in larger numbers, and are smaller */
#ifndef EDGEOS_SLOTS
#define EDGEOS_SLOTS 8
#endif
#ifndef EDGEOS_SLOT_SIZE
#define EDGEOS_SLOT_SIZE 4096
#endif
#endif
#include <edgeos.h>

#include "binary.h"

/* ---- Input ---- */

/* Deals with what comes next in the input; returns the bytes that are done with, 0 = more must come first. */
static uint32_t step(struct connection *c, uint8_t *at, uint32_t len) {
    if (c->swallow) {
        uint32_t part = c->swallow < len ? c->swallow : len;
        c->swallow -= part;
        return part;
    }
    if (c->upload.item) {
        struct upload *u = &c->upload;
        uint32_t part = u->needed - u->filled < len ? u->needed - u->filled : len;
        memcpy(item_value(u->item) + u->filled, at, part);
        u->filled += part;
        if (u->filled == u->needed) c->protocol == TEXT ? text_complete(c) : binary_complete(c);
        return part;
    }
    if (c->protocol == UNDECIDED) c->protocol = at[0] == BINARY_REQUEST ? BINARY : TEXT;
    uint32_t part = c->protocol == TEXT ? text_read(c, at, len) : binary_read(c, at, len);
    if (c->upload.item && c->upload.needed == 0) binary_complete(c);
    return part;
}

/* Deals with input as far as it goes; returns the bytes that are done with. */
static uint32_t consume(struct connection *c, uint8_t *at, uint32_t len) {
    uint32_t done = 0;
    while (done < len && !c->unsent && !c->closing && !c->dead) {
        uint32_t part = step(c, at + done, len - done);
        if (part == 0) break;
        done += part;
    }
    return done;
}

static void consume_held(struct connection *c) {
    if (!c->held_len) return;
    uint32_t done = consume(c, c->held, c->held_len);
    if (done) held_remove(c, done);
}

static void receive(struct connection *c, uint8_t *at, uint32_t len) {
    stats.bytes_read += len;
    if (!c->held_len) {
        uint32_t done = consume(c, at, len);
        at += done;
        len -= done;
        if (len == 0 || c->closing || c->dead) return;
    }
    if (!held_add(c, at, len)) {
        if (!c->unsent) answer(c, "SERVER_ERROR out of memory reading request");
        c->closing = true;
        return;
    }
    if (c->held_len > len) consume_held(c); /* else there was nothing in front of it, and it has been tried */
}

/* What was answered takes the place of the message that asked for it: the kernel sends that on without a call. */
static bool answer_in_place(const struct connection *c, edgeos_message *m) {
    if (m->kind != EDGEOS_DATA || !out.len || c->unsent || c->dead || c->closing || out.len > m->capacity) return false;
    memcpy(m->data, out.bytes, out.len);
    m->len = out.len;
    stats.bytes_written += out.len;
    out.len = 0;
    return true;
}

/* Sends what was answered; closes the connection when it is over. Returns the verdict on the message. */
static int settle(struct connection *c, edgeos_message *m) {
    if (answer_in_place(c, m)) return EDGEOS_BACK;
    out_flush(c);
    if (c->ended && !c->unsent) c->closing = true;
    if (c->dead || (c->closing && !c->unsent)) {
        edgeos_close(c->flow);
        connection_end(c);
    }
    return EDGEOS_DONE;
}

/* ---- Messages ---- */

/* A datagram is a request of its own: 8 bytes of frame, of which the number is answered, then commands. */
static void datagram(edgeos_message *m) {
    static struct connection c;
    if (m->len <= UDP_HEADER) return;
    stats.bytes_read += m->len;
    if (m->data[4] != 0 || m->data[5] != 1) return; /* requests of several datagrams are not answered */
    memset(&c, 0, sizeof c);
    c.flow = m->flow;
    c.datagram = true;
    c.udp_request = (uint16_t)(m->data[0] << 8 | m->data[1]);
    consume(&c, m->data + UDP_HEADER, m->len - UDP_HEADER);
    connection_clear(&c);
}

static struct connection *known_connection(uint64_t flow) {
    struct connection *c = *connection_place(flow);
    return c ? c : connection_open(flow);
}

/* Asks at once for the lines of memory that most commands need. With many caches on a machine each is a cold one, and the
 * processor would learn of them one after the other. */
static void fetch_lines(void) {
    const void *const lines[] = {&out.len, &reply.at, &hits, &cache.newest, &now, first_buckets, &first_buckets[FIRST_BUCKETS / 2],
                                 arena_first, arena_first + 64 /* the first connection */};
    for (uint32_t i = 0; i < sizeof lines / sizeof *lines; i++) (void)*(const volatile uint8_t *)lines[i];
}

int edgeos_handle(edgeos_message *m) {
    fetch_lines();
    time_is(m->time_ns);
    hash_key_draw();
    if (m->kind == EDGEOS_DATAGRAM) {
        datagram(m);
        return EDGEOS_DONE;
    }
    if (m->kind == EDGEOS_PACKET || m->kind == EDGEOS_TIMER) return EDGEOS_DROP;
    struct connection *c = *connection_place(m->flow);
    if (m->kind == EDGEOS_CLOSED) {
        if (c) connection_end(c);
        return EDGEOS_DONE;
    }
    if (!c && !(c = known_connection(m->flow))) {
        edgeos_close(m->flow);
        return EDGEOS_DONE;
    }
    switch (m->kind) {
    case EDGEOS_OPEN:
        if (m->len >= sizeof c->ends) memcpy(&c->ends, m->data, sizeof c->ends);
        break;
    case EDGEOS_DATA: receive(c, m->data, m->len); break;
    case EDGEOS_ROOM:
        unsent_continue(c);
        consume_held(c);
        break;
    case EDGEOS_HALF_CLOSED: c->ended = true; break;
    default: break;
    }
    return settle(c, m);
}

/* ---- Configuration ---- */

static char complaint[96];

_Noreturn static void refuse(uint32_t line, const char *what) {
    char *at = complaint;
    memcpy(at, "line ", 5);
    at = (char *)write_u64((uint8_t *)at + 5, line);
    *at++ = ':';
    *at++ = ' ';
    strcpy(at, what);
    edgeos_fail(complaint);
}

/* A size in bytes, or with k or m behind it in units of 1,024 or 1,048,576. */
static bool read_size(struct word w, uint32_t *out) {
    uint32_t unit = 1;
    if (w.len && (w.at[w.len - 1] | 32) == 'k') unit = 1024;
    if (w.len && (w.at[w.len - 1] | 32) == 'm') unit = 1024 * 1024;
    uint64_t value;
    if (!read_u64(w.at, w.len - (unit > 1), &value) || value > UINT32_MAX / unit) return false;
    *out = (uint32_t)value * unit;
    return true;
}

static void configure(struct words *w, uint32_t line, uint32_t *memory) {
    struct word *l = w->list;
    if (w->count != 2) refuse(line, "write one setting and its value");
    if (same(l[0], "memory")) {
        if (!read_size(l[1], memory) || *memory < 16384) refuse(line,
            "memory must be a size of 16k or more, as 512k or 8m");
    } else if (same(l[0], "item_size")) {
        if (!read_size(l[1], &settings.item_size_max) || settings.item_size_max < 1024 ||
            settings.item_size_max > 128u << 20) refuse(line, "item_size must be a size from 1k to 128m");
    } else if (same(l[0], "evictions")) {
        if (!same(l[1], "on") && !same(l[1], "off")) refuse(line, "evictions must be on or off");
        settings.evict = same(l[1], "on");
    } else {
        refuse(line, "unknown setting; allowed here: memory, item_size, evictions");
    }
}

void edgeos_init(const uint8_t *config, uint32_t len) {
    uint32_t memory = 0, line = 0;
    uint8_t *at = (uint8_t *)(uintptr_t)config, *end = at + len;
    while (at < end) {
        struct words w;
        uint8_t *next = memchr(at, '\n', (size_t)(end - at));
        uint8_t *stop = next ? next : end;
        uint8_t *note = memchr(at, '#', (size_t)(stop - at));
        uint8_t *last = note ? note : stop;
        while (last > at && is_space(last[-1])) last--;
        line++;
        split(&w, at, last);
        if (w.count) configure(&w, line, &memory);
        at = next ? next + 1 : end;
    }
    table_open();
    arena_open(edgeos_the_layout.data + EDGEOS_SLOTS * EDGEOS_SLOT_STRIDE, memory);
    reply_begin();
}
