/* packet.h: packets inside a guest that was compiled from a Click configuration, and where their bytes lie.
 *
 * A packet that has arrived lies in its message's slot until the burst is over and leaves from there without a copy. Copies,
 * packets of the guest's own, and packets that an element still holds when the burst ends lie in buffers of the pool. The
 * compiler sets CLICK_POOL, the buffers there are (0: no element needs any), and CLICK_HOLDS, whether an element may hold a
 * packet when its function returns. Then each arriving packet brings its buffer with it, so that holding cannot fail later.
 *
 * Ownership: a function that is given a packet passes it on, ends it by click_drop, or holds it; exactly one of these.
 */
#ifndef CLICK_PACKET_H
#define CLICK_PACKET_H

#include <click/bytes.h>
#include <edgeos.h>
#include <stdbool.h>
#include <stddef.h>

/* On the host the bytes of a buffer that are not part of its packet are out of bounds, so that reading them is noticed. */
#ifdef EDGEOS_HOST_TEST
#include <click/host.h>
#else
#define CLICK_EXPOSE(at, n) ((void)0)
#define CLICK_HIDE(at, n) ((void)0)
#endif

#define CLICK_BURST 32 /* messages that are dealt with at once */
#define CLICK_NO_SLOT 0xffffu

enum { CLICK_HOST, CLICK_BROADCAST, CLICK_MULTICAST, CLICK_OTHERHOST, CLICK_OUTGOING };

typedef struct click_packet {
    uint8_t *data;             /* first byte */
    uint32_t len;              /* bytes, at most EDGEOS_SLOT_SIZE */
    uint32_t dst_ip;           /* destination annotation, as it lies in packets; 0 = none */
    uint8_t *head, *end;       /* bounds of the room that the packet may grow into */
    uint8_t *network;          /* network header; NULL = not known */
    uint8_t *transport;        /* transport header; NULL = not known */
    struct click_packet *next; /* for whoever holds it */
    uint64_t time_ns;          /* when it came in, nanoseconds since 1970 */
    uint64_t flow;             /* number of its flow, 0 = not tracked */
    uint32_t aggregate;
    uint16_t slot;     /* the slot that it lies in, or CLICK_NO_SLOT */
    uint16_t vlan_tci; /* VLAN annotation, host order */
    uint8_t paint;
    uint8_t device;    /* number of the in port */
    uint8_t direction; /* EDGEOS_FORWARD or EDGEOS_REVERSE */
    uint8_t type;      /* CLICK_HOST and so on, by the Ethernet destination */
    uint8_t fix_src;   /* FixIPSrc is to set the source address */
    uint8_t problem;   /* where ICMP parameter problems point to */
} click_packet;

EDGEOS_COUNTER(refused); /* packets that could not be sent: no room, or no such way */

static uint64_t click_now = 1;           /* nanoseconds since 1970; never goes back; not 0, which means never */
static uint32_t click_first, click_last; /* slots of the burst */
static uint32_t click_floor;             /* slots below have been sent, or gave way to what was emitted */

/* ---- The pool ---- */

#if CLICK_POOL

EDGEOS_COUNTER(no_buffer); /* packets that were lost because the pool had no buffer left */

#define CLICK_BUFFER_SIZE (EDGEOS_HEADROOM + EDGEOS_SLOT_SIZE)

static click_packet click_packets[CLICK_POOL];
static click_packet *click_free; /* those that were given back */
static uint32_t click_used;      /* those that have ever been taken: the rest is untouched, so that it costs no memory */
static uint8_t *click_buffers;   /* one for each of click_packets */

static void click_pool_init(void) {
#ifdef EDGEOS_HOST_TEST
    static uint8_t buffers[CLICK_POOL * CLICK_BUFFER_SIZE];
    click_buffers = buffers;
#else
    click_buffers = (uint8_t *)(uintptr_t)edgeos_new_pages(CLICK_POOL * CLICK_BUFFER_SIZE);
    if (!click_buffers) edgeos_fail("the memory is too small for the configuration's packets; raise the template's memory");
#endif
}

static inline click_packet *click_take_free(void) {
    click_packet *p = click_free;
    if (p) {
        click_free = p->next;
    } else if (click_used < CLICK_POOL) {
        p = &click_packets[click_used++];
    }
    return p;
}

static inline void click_give_back(click_packet *p) {
    p->next = click_free;
    click_free = p;
}

static inline void click_use_buffer(click_packet *p) {
    p->head = click_buffers + (size_t)(p - click_packets) * CLICK_BUFFER_SIZE;
    p->end = p->head + CLICK_BUFFER_SIZE;
    p->data = p->head + EDGEOS_HEADROOM;
    p->slot = CLICK_NO_SLOT;
}

/* Of a buffer just the packet's bytes may be touched. */
static inline void click_expose_packet(const click_packet *p) {
    (void)p;
    CLICK_HIDE(p->head, (size_t)(p->end - p->head));
    CLICK_EXPOSE(p->data, p->len);
}

static inline void click_clear_annotations(click_packet *p) {
    p->network = p->transport = NULL;
    p->next = NULL;
    p->dst_ip = p->aggregate = 0;
    p->vlan_tci = 0;
    p->paint = p->fix_src = p->problem = p->type = 0;
}

/* A packet of `len` zero bytes; NULL when the pool is empty or `len` too large. */
__attribute__((unused)) static click_packet *click_new(uint32_t len) {
    click_packet *p = len <= EDGEOS_SLOT_SIZE ? click_take_free() : NULL;
    if (!p) {
        no_buffer.value++;
        return NULL;
    }
    click_use_buffer(p);
    click_clear_annotations(p);
    p->len = len;
    p->time_ns = click_now;
    p->flow = 0;
    p->device = 0;
    p->direction = EDGEOS_FORWARD;
    click_expose_packet(p);
    __builtin_memset(p->data, 0, len);
    return p;
}

/* All annotations but those of header positions. */
__attribute__((unused)) static inline void click_copy_annotations(click_packet *to, const click_packet *from) {
    to->dst_ip = from->dst_ip;
    to->time_ns = from->time_ns;
    to->flow = from->flow;
    to->aggregate = from->aggregate;
    to->vlan_tci = from->vlan_tci;
    to->paint = from->paint;
    to->device = from->device;
    to->direction = from->direction;
    to->type = from->type;
    to->fix_src = from->fix_src;
    to->problem = from->problem;
}

static inline uint8_t *click_moved(const click_packet *from, const click_packet *to, uint8_t *header) {
    return header ? to->data + (header - from->data) : NULL;
}

/* A copy with its annotations; NULL when the pool is empty. */
__attribute__((unused)) static click_packet *click_copy(const click_packet *from) {
    click_packet *p = click_take_free();
    if (!p) {
        no_buffer.value++;
        return NULL;
    }
    *p = *from;
    click_use_buffer(p);
    p->next = NULL;
    p->network = click_moved(from, p, from->network);
    p->transport = click_moved(from, p, from->transport);
    click_expose_packet(p);
    __builtin_memcpy(p->data, from->data, from->len);
    return p;
}

#endif /* CLICK_POOL */

/* ---- Ending a packet ---- */

#if CLICK_HOLDS
static click_packet *click_arrived[CLICK_BURST]; /* packets of the burst that lie in their slots, by their place in it */
#endif

/* The packet is no more; its verdict has been given, or its bytes were emitted. */
static inline void click_forget(click_packet *p) {
#if CLICK_HOLDS
    if (p->slot != CLICK_NO_SLOT) click_arrived[p->slot - click_first] = NULL;
    click_give_back(p);
#elif CLICK_POOL
    if (p->slot == CLICK_NO_SLOT) click_give_back(p);
#else
    (void)p;
#endif
}

static inline void click_drop(click_packet *p) {
    if (p->slot != CLICK_NO_SLOT) edgeos_verdicts[p->slot] = EDGEOS_DROP;
    click_forget(p);
}

/* A packet that has become others: dealt with, not dropped. */
__attribute__((unused)) static inline void click_end(click_packet *p) {
    if (p->slot != CLICK_NO_SLOT) edgeos_verdicts[p->slot] = EDGEOS_DONE;
    click_forget(p);
}

/* ---- Sending ---- */

#define CLICK_NOWHERE (-100)

/* The verdict that leads to a device, for a message of this direction. */
static inline int32_t click_device_verdict(uint8_t direction, uint32_t device) {
    if (direction == EDGEOS_FORWARD) return device == 0 ? EDGEOS_BACK : (int32_t)device - 1;
    return device == 0 ? 0 : device == 1 ? EDGEOS_BACK : CLICK_NOWHERE;
}

#define CLICK_RING 0x100u /* marks an out port in the packet's own direction, beside the devices */

static inline int32_t click_verdict(uint8_t direction, uint32_t to) {
    return to & CLICK_RING ? (int32_t)(to & ~CLICK_RING) : click_device_verdict(direction, to);
}

#if CLICK_POOL
/* Sends a copy in front of the slot `index`, whose message gives direction and flow. */
static bool click_emit_at(uint32_t index, int32_t verdict, const uint8_t *data, uint32_t len) {
    edgeos_current = index;
    return verdict != CLICK_NOWHERE && edgeos_emit(verdict, data, len) == 0;
}

/* Emitted messages leave in front of a message of the burst. When all of them are on their way, the last one is emitted as
 * well, so that order is kept. */
static bool click_emit(const click_packet *p, uint32_t to) {
    if (click_floor > click_last) {
        const edgeos_message *m = &edgeos_messages[click_last];
        if (!click_emit_at(click_last, edgeos_verdicts[click_last], m->data, m->len)) return false;
        edgeos_verdicts[click_last] = EDGEOS_DONE;
        click_floor = click_last;
    }
    return click_emit_at(click_floor, click_verdict(edgeos_messages[click_floor].direction, to), p->data, p->len);
}
#endif

/* Sends a packet: one that lies in its slot by its verdict, if none behind it has left, and others as a copy. */
static bool click_send(click_packet *p, uint32_t to) {
    bool sent = false;
    if (p->slot != CLICK_NO_SLOT && p->slot >= click_floor) {
        edgeos_message *m = &edgeos_messages[p->slot];
        const int32_t verdict = click_verdict(m->direction, to);
        sent = verdict != CLICK_NOWHERE;
        if (sent) {
            m->data = p->data;
            m->len = p->len;
            click_floor = p->slot + 1u;
        }
        edgeos_verdicts[p->slot] = sent ? verdict : EDGEOS_DROP;
    } else {
#if CLICK_POOL
        sent = click_emit(p, to);
        if (p->slot != CLICK_NO_SLOT) edgeos_verdicts[p->slot] = sent ? EDGEOS_DONE : EDGEOS_DROP;
#endif
    }
    refused.value += !sent;
    click_forget(p);
    return sent;
}

static inline bool click_to_device(click_packet *p, uint32_t device) { return click_send(p, device); }
static inline bool click_to_ring(click_packet *p, uint32_t port) { return click_send(p, port | CLICK_RING); }

/* ---- Changing a packet's ends ---- */

static inline uint32_t click_headroom(const click_packet *p) { return (uint32_t)(p->data - p->head); }
static inline uint32_t click_tailroom(const click_packet *p) { return (uint32_t)(p->end - p->data) - p->len; }

/* Bytes of the packet from a header on; 0 when it lies outside. */
static inline uint32_t click_after(const click_packet *p, const uint8_t *header) {
    const uintptr_t offset = (uintptr_t)header - (uintptr_t)p->data;
    return header && offset <= p->len ? p->len - (uint32_t)offset : 0;
}

/* Removes `n` bytes in front; false, and nothing happens, when there are fewer. */
static inline bool click_strip(click_packet *p, uint32_t n) {
    if (n > p->len) return false;
    CLICK_HIDE(p->data, n);
    p->data += n;
    p->len -= n;
    return true;
}

/* Removes `n` bytes at the end; false, and nothing happens, when there are fewer. */
static inline bool click_take(click_packet *p, uint32_t n) {
    if (n > p->len) return false;
    p->len -= n;
    CLICK_HIDE(p->data + p->len, n);
    return true;
}

/* Moves the bytes within their room, header positions along. */
static inline void click_move(click_packet *p, uint8_t *to) {
    if (p->network) p->network = to + (p->network - p->data);
    if (p->transport) p->transport = to + (p->transport - p->data);
    CLICK_EXPOSE(p->head, (size_t)(p->end - p->head));
    __builtin_memmove(to, p->data, p->len);
    p->data = to;
    CLICK_HIDE(p->head, (size_t)(to - p->head));
    CLICK_HIDE(to + p->len, (size_t)(p->end - to) - p->len);
}

/* Room for `n` more bytes in front, which are those that lay there (stripped before, or zero): the new first byte, or NULL
 * when the packet would be too long. Bytes are moved when there is too little room in front. */
static inline uint8_t *click_unstrip(click_packet *p, uint32_t n) {
    if (n > EDGEOS_SLOT_SIZE - p->len) return NULL;
    if (n > click_headroom(p)) {
        click_move(p, p->end - p->len);
        if (n > click_headroom(p)) return NULL;
        CLICK_EXPOSE(p->data - n, n);
        __builtin_memset(p->data - n, 0, n);
    }
    p->data -= n;
    p->len += n;
    CLICK_EXPOSE(p->data, n);
    return p->data;
}

/* Appends `n` zero bytes: the first of them, or NULL when the packet would be too long. */
static inline uint8_t *click_put(click_packet *p, uint32_t n) {
    if (n > EDGEOS_SLOT_SIZE - p->len) return NULL;
    if (n > click_tailroom(p)) click_move(p, p->head);
    if (n > click_tailroom(p)) return NULL;
    uint8_t *at = p->data + p->len;
    CLICK_EXPOSE(at, n);
    __builtin_memset(at, 0, n);
    p->len += n;
    return at;
}

#endif /* CLICK_PACKET_H */
