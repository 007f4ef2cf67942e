/* edgeos.h: the guest side of edgeos, ABI version 1.
 *
 * A guest is a program that handles messages, one featherweight process (FWP) per client. Write
 *
 *     int edgeos_handle(edgeos_message *m);                          required: the verdict on one message
 *     void edgeos_init(const uint8_t *config, uint32_t len);         optional: runs once per template
 *     int32_t edgeos_handler(…);                                     optional: named values, read and written from outside
 *
 * and compile with `edgeos build`. edgeos_init may parse the configuration and build tables: every FWP of the template
 * starts from the memory that it leaves behind (the checkpoint). edgeos_handle may read and change a message in place.
 *
 * The host trusts nothing written here. A bad length, pointer or verdict, a trap, or an overrun CPU budget ends this FWP
 * alone. docs/guest-abi.md describes the binary interface below the SDK.
 *
 * Settings, as -D or as #define before the include:
 *     EDGEOS_SLOTS      messages that one FWP can hold, a power of two from 8 to 256 (default 64, with EDGEOS_TCP 256)
 *     EDGEOS_SLOT_SIZE  bytes of the largest message, a multiple of 64 from 64 to 65536 (default 2048)
 *     EDGEOS_HEADROOM   bytes in front of each message as delivered that are the guest's to use, 0 (default) to 64
 *     EDGEOS_TCP        defined: the guest speaks TCP by itself, over a port for packets: see tcp/tcp.h
 *     EDGEOS_OWN_BURST  defined: the guest defines edgeos_burst itself, instead of edgeos_handle
 */
#ifndef EDGEOS_H
#define EDGEOS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef EDGEOS_SLOTS
#ifdef EDGEOS_TCP
#define EDGEOS_SLOTS 256 /* the windows of several connections may come at once */
#else
#define EDGEOS_SLOTS 64
#endif
#endif
#ifndef EDGEOS_SLOT_SIZE
#define EDGEOS_SLOT_SIZE 2048
#endif

_Static_assert(EDGEOS_SLOTS >= 8 && EDGEOS_SLOTS <= 256 && (EDGEOS_SLOTS & (EDGEOS_SLOTS - 1)) == 0,
               "EDGEOS_SLOTS must be a power of two from 8 to 256");
#ifndef EDGEOS_HEADROOM
#define EDGEOS_HEADROOM 0
#endif

_Static_assert(EDGEOS_SLOT_SIZE >= 64 && EDGEOS_SLOT_SIZE <= 65536 && EDGEOS_SLOT_SIZE % 64 == 0,
               "EDGEOS_SLOT_SIZE must be a multiple of 64 from 64 to 65536");
_Static_assert(EDGEOS_HEADROOM >= 0 && EDGEOS_HEADROOM <= 64, "EDGEOS_HEADROOM must be 0 to 64, the gap between slots");

/* Verdicts. 0 forwards on out port 0 (onward along the chain), k on out port k. */
#define EDGEOS_DROP (-1) /* discard the message; counted as a drop by verdict */
#define EDGEOS_BACK (-2) /* send it back the way it came */
#define EDGEOS_DONE (-3) /* dealt with: it goes no further; counted as consumed */

/* Kinds of message. */
#define EDGEOS_PACKET 0      /* an Ethernet frame, without its frame check sequence */
#define EDGEOS_OPEN 1        /* a connection opened; its data are an edgeos_endpoints */
#define EDGEOS_DATA 2        /* bytes of a connection, in order */
#define EDGEOS_HALF_CLOSED 3 /* the other end sends no more; it may still read */
#define EDGEOS_CLOSED 4      /* the connection is gone, and its flow number with it */
#define EDGEOS_DATAGRAM 5    /* a whole datagram */
#define EDGEOS_ROOM 6        /* the connection takes bytes again, after edgeos_send took fewer than it was given */
#define EDGEOS_TIMER 7       /* a timer has run out; its data are the 8 bytes of the token it was set with */

/* Directions. */
#define EDGEOS_FORWARD 0 /* from the client's side towards the far end of the chain */
#define EDGEOS_REVERSE 1 /* from the far end towards the client */
#define EDGEOS_UPSTREAM 2 /* from a connection that edgeos_connect has opened; EDGEOS_BACK goes there */

typedef struct edgeos_message {
    uint8_t *data;     /* first byte; may be moved anywhere inside this guest's memory */
    uint32_t len;      /* bytes; may be changed up to capacity */
    uint32_t capacity; /* bytes that fit at the data pointer as delivered */
    uint8_t kind;      /* EDGEOS_PACKET and so on */
    uint8_t port;      /* in port: in a line 0 = from the client's side, 1 = from the far side */
    uint8_t direction; /* EDGEOS_FORWARD or EDGEOS_REVERSE */
    uint8_t reserved;
    uint64_t flow;    /* number of the flow within this FWP, from 1; both directions alike; 0 = not tracked */
    uint64_t time_ns; /* when the message was received, nanoseconds since 1970 */
} edgeos_message;

/* The two ends of a connection, as they are in the data of EDGEOS_OPEN. */
typedef struct edgeos_endpoints {
    uint8_t family;      /* 4, 6, or 0 for a Unix socket, which has no addresses */
    uint8_t transport;   /* 6 TCP, 17 UDP, 0 Unix */
    uint16_t peer_port;  /* host byte order */
    uint16_t local_port; /* host byte order */
    uint16_t upstream;   /* 0: a client's connection; n: opened by edgeos_connect(n - 1) */
    uint8_t peer[16];    /* of the client, or of the upstream; IPv4 as ::ffff:a.b.c.d */
    uint8_t local[16];
} edgeos_endpoints;
_Static_assert(sizeof(edgeos_endpoints) == 40, "part of the binary interface");

/* A named counter that the control plane can read, per client and summed:
 *     EDGEOS_COUNTER(denied);   ...   denied.value++;                                           */
typedef struct edgeos_counter {
    char name[24];
    uint64_t value;
} edgeos_counter;

#define EDGEOS_COUNTER(id) \
    __attribute__((section("edgeos_counters"), used)) edgeos_counter id = {#id, 0}

int edgeos_handle(edgeos_message *m);
__attribute__((weak)) void edgeos_init(const uint8_t *config, uint32_t len);

/* Optional: a value of this FWP that the control plane asks for by name (Node.read_handler) or sets (Node.write_handler),
 * between two bursts and under the budget of one. `name` has no closing NUL. A write brings its `len` bytes in `data`; the
 * answer, up to `capacity` bytes, is left in `data`, and its length returned. Neither name nor data outlast the call. Or: */
#define EDGEOS_NO_HANDLER (-1)  /* there is nothing of this name */
#define EDGEOS_NOT_ALLOWED (-2) /* it cannot be read, or cannot be written */
#define EDGEOS_BAD_VALUE (-3)   /* it does not take this value; EDGEOS_BAD_VALUE - n: and n bytes in `data` say why */
__attribute__((weak)) int32_t edgeos_handler(int write, const char *name, uint32_t name_len, char *data, uint32_t len,
                                             uint32_t capacity);

/* ---- Below here: the binary interface. The host reads it once per template; see docs/guest-abi.md. ---- */

#ifndef EDGEOS_HOST_TEST

__attribute__((import_module("edgeos"), import_name("emit"))) int32_t edgeos_import_emit(uint32_t index, int32_t port,
                                                                                         const void *data,
                                                                                         uint32_t len);

struct edgeos_layout {
    uint32_t version;       /* 1 */
    uint32_t slots;         /* EDGEOS_SLOTS */
    uint32_t slot_size;     /* EDGEOS_SLOT_SIZE, bytes */
    uint32_t slot_stride;   /* bytes from one slot to the next */
    uint32_t messages;      /* address of edgeos_message[slots] */
    uint32_t verdicts;      /* address of int32_t[slots] */
    uint32_t data;          /* address of slot 0; 0 = out of memory */
    uint32_t counters;      /* address of edgeos_counter[counter_count] */
    uint32_t counter_count;
    uint32_t error;         /* address of the reason that edgeos_fail gave */
    uint32_t error_len;
};

/* The odd cache line between slots spreads them over the sets of a first-level cache. */
#define EDGEOS_SLOT_STRIDE (EDGEOS_SLOT_SIZE + 64)

__attribute__((weak, aligned(64))) edgeos_message edgeos_messages[EDGEOS_SLOTS];
__attribute__((weak, aligned(64))) int32_t edgeos_verdicts[EDGEOS_SLOTS];
__attribute__((weak)) struct edgeos_layout edgeos_the_layout;
__attribute__((weak)) uint32_t edgeos_current; /* the message being handled, which orders emitted ones among them */

extern edgeos_counter __start_edgeos_counters[] __attribute__((weak));
extern edgeos_counter __stop_edgeos_counters[] __attribute__((weak));

#ifndef EDGEOS_TCP /* TCP within the FWP has these calls of its own, in tcp/service.h */
/* Sends a message of the guest's own on an out port (or EDGEOS_BACK), in the flow and direction of the message being
 * handled, before that message. The bytes are copied before it returns. 0: accepted. -1: no room now, or the arguments
 * are out of range; nothing was sent. */
static inline int edgeos_emit(int port, const void *data, uint32_t len) {
    return edgeos_import_emit(edgeos_current, port, data, len);
}
#endif

/* ---- Connections and datagrams. Flows are known by their number, m->flow, at any later time too. ---- */

__attribute__((import_module("edgeos"), import_name("stream"))) int32_t edgeos_import_stream(uint32_t index,
                                                                                             uint64_t flow, int32_t to,
                                                                                             int32_t kind,
                                                                                             const void *data,
                                                                                             uint32_t len);

#ifndef EDGEOS_TCP
/* Sends bytes to the other end of a flow: its client, through the stages before this one, or the upstream that it was opened
 * to. Returns how many bytes were taken: all or the first part of them for a connection, after which EDGEOS_ROOM says when
 * there is room again; all or none of a datagram. -1: no such flow, or it is closed. The bytes are copied at once. */
static inline int32_t edgeos_send(uint64_t flow, const void *data, uint32_t len) {
    return edgeos_import_stream(edgeos_current, flow, EDGEOS_BACK, EDGEOS_DATA, data, len);
}

/* Sends bytes of a flow onward, to the stage on out port `port`. As edgeos_send, but -1 also when there is no such stage. */
static inline int32_t edgeos_forward(uint64_t flow, int port, const void *data, uint32_t len) {
    return edgeos_import_stream(edgeos_current, flow, port, EDGEOS_DATA, data, len);
}

/* Ends this side's sending once everything sent has left; the other end may still send. 0, or -1: no such flow. */
static inline int32_t edgeos_finish(uint64_t flow) {
    return edgeos_import_stream(edgeos_current, flow, EDGEOS_BACK, EDGEOS_HALF_CLOSED, 0, 0);
}

/* The same onward, for the stage on out port `port`: its EDGEOS_HALF_CLOSED comes after everything forwarded. 0; -1: no such flow
 * or stage; -2: no room now, EDGEOS_ROOM says when. */
static inline int32_t edgeos_forward_finish(uint64_t flow, int port) {
    return edgeos_import_stream(edgeos_current, flow, port, EDGEOS_HALF_CLOSED, 0, 0);
}

/* Closes a connection once everything sent has left. No more messages of this flow come, EDGEOS_CLOSED neither.
 * 0, or -1: no such flow.
 *
 * Of packets: the flow is over. When this burst has been dealt with the kernel forgets it, and with its last flow the client,
 * whose FWPs are recycled, or parked, at once. Packets that come later are a new flow, with a new number. Where messages of the
 * flow wait behind this one, they come first and it goes on: say so again with the last. 0, also when it was over; or -1: there
 * was never such a flow, or 1,024 were closed in this burst. */
static inline int32_t edgeos_close(uint64_t flow) {
    return edgeos_import_stream(edgeos_current, flow, EDGEOS_BACK, EDGEOS_CLOSED, 0, 0);
}
#endif

/* ---- What the manifest may grant to a template. A guest that calls what was not granted is refused when it is loaded. ---- */

__attribute__((import_module("edgeos"), import_name("connect"))) int64_t edgeos_import_connect(uint32_t upstream);
__attribute__((import_module("edgeos"), import_name("timer"))) int32_t edgeos_import_timer(uint64_t delay_ns,
                                                                                           uint64_t token);
__attribute__((import_module("edgeos"), import_name("clock"))) uint64_t edgeos_import_clock(void);
__attribute__((import_module("edgeos"), import_name("random"))) int32_t edgeos_import_random(void *data, uint32_t len);

/* grant.connect: opens a connection to the upstream that stands at this place in the grant's list, from 0. Returns the number
 * of the new flow, whose EDGEOS_OPEN or, when it fails, EDGEOS_CLOSED follows; -1: no such upstream, or too many connections. */
#ifdef EDGEOS_TCP /* only clients open connections */
static inline int64_t edgeos_connect(uint32_t upstream) { return (void)upstream, -1; }
#else
static inline int64_t edgeos_connect(uint32_t upstream) { return edgeos_import_connect(upstream); }
#endif

/* grant.timer: asks for an EDGEOS_TIMER that carries `token`, `delay_ns` nanoseconds from now, once. Setting a token again
 * moves its timer; a delay of UINT64_MAX ends it. 0, or -1: too many timers. */
static inline int32_t edgeos_timer(uint64_t delay_ns, uint64_t token) { return edgeos_import_timer(delay_ns, token); }

/* grant.clock: nanoseconds since 1970. Without the grant there is m->time_ns. */
static inline uint64_t edgeos_clock(void) { return edgeos_import_clock(); }

/* grant.random: fills `len` bytes with randomness fit for keys. 0, or -1: the range is outside the memory, or over 64 KiB. */
static inline int32_t edgeos_random(void *data, uint32_t len) { return edgeos_import_random(data, len); }

/* Ends edgeos_init with a reason for the user, such as "line 3: unknown word 'alow'"; the template is then refused. */
__attribute__((noreturn)) static inline void edgeos_fail(const char *reason) {
    uint32_t len = 0;
    while (len < 1024 && reason[len]) len++;
    edgeos_the_layout.error = (uint32_t)(uintptr_t)reason;
    edgeos_the_layout.error_len = len;
    __builtin_trap();
}

/* New pages at the end of the memory, `len` bytes or more; 0 when there are none. */
static inline uint32_t edgeos_new_pages(size_t len) {
    size_t page = __builtin_wasm_memory_grow(0, (len + 65535) / 65536);
    return page == (size_t)-1 ? 0 : (uint32_t)(page * 65536);
}

/* Where the slots lie: behind everything else, so that the pages that every message needs (stack, messages, verdicts, the
 * guest's own variables, the first slots) stay close together at the start, where clearing them is cheap. `edgeos build`
 * links an allocator that takes new pages only, so the rest of the last page is free (EDGEOS_SLOTS_AFTER_DATA); with another
 * toolchain, whose allocator may use it, the slots start on a page of their own. */
static inline uint32_t edgeos_slots_address(void) {
    const size_t size = (EDGEOS_HEADROOM + 15) / 16 * 16 + (size_t)EDGEOS_SLOTS * EDGEOS_SLOT_STRIDE;
#ifdef EDGEOS_SLOTS_AFTER_DATA
    extern uint8_t __heap_base[];
    const size_t start = ((size_t)(uintptr_t)__heap_base + 63) / 64 * 64;
    const size_t have = __builtin_wasm_memory_size(0) * 65536;
    if (start + size > have && edgeos_new_pages(start + size - have) == 0) return 0;
#else
    const uint32_t start = edgeos_new_pages(size);
    if (start == 0) return 0;
#endif
    return (uint32_t)start + (EDGEOS_HEADROOM + 15) / 16 * 16;
}

/* Address of the layout; the first call of the host, once. */
__attribute__((weak, export_name("edgeos_layout_v1"))) uint32_t edgeos_layout_v1(void) {
    struct edgeos_layout *l = &edgeos_the_layout;
    l->version = 1;
    l->slots = EDGEOS_SLOTS;
    l->slot_size = EDGEOS_SLOT_SIZE;
    l->slot_stride = EDGEOS_SLOT_STRIDE;
    l->messages = (uint32_t)(uintptr_t)edgeos_messages;
    l->verdicts = (uint32_t)(uintptr_t)edgeos_verdicts;
    l->data = edgeos_slots_address();
    l->counters = (uint32_t)(uintptr_t)__start_edgeos_counters;
    l->counter_count = (uint32_t)(__stop_edgeos_counters - __start_edgeos_counters);
    return (uint32_t)(uintptr_t)l;
}

/* Room for the configuration, in new pages so that it fits whatever its size; 0 when there is none. */
__attribute__((weak, export_name("edgeos_config"))) uint32_t edgeos_config(uint32_t len) {
    return edgeos_new_pages(len);
}

/* Runs the guest's init, once per template. */
__attribute__((weak, export_name("edgeos_start"))) void edgeos_start(uint32_t config, uint32_t len) {
    if (edgeos_init) edgeos_init((const uint8_t *)(uintptr_t)config, len);
}

/* Handles `count` messages from slot `first` on; the host keeps first + count within the slots. */
#ifdef EDGEOS_TCP
/* in tcp/burst.h */
#elif defined EDGEOS_OWN_BURST
__attribute__((export_name("edgeos_burst"))) void edgeos_burst(uint32_t first, uint32_t count);
#else
__attribute__((weak, export_name("edgeos_burst"))) void edgeos_burst(uint32_t first, uint32_t count) {
    edgeos_message *m = edgeos_messages + first;
    int32_t *verdict = edgeos_verdicts + first;
    for (uint32_t i = 0; i < count; i++) {
        edgeos_current = first + i;
        verdict[i] = edgeos_handle(m + i);
    }
}
#endif

/* Reads or writes a named value, between bursts. */
__attribute__((weak, export_name("edgeos_access"))) int32_t edgeos_access(uint32_t write, const char *name,
                                                                          uint32_t name_len, char *data, uint32_t len,
                                                                          uint32_t capacity) {
    return edgeos_handler ? edgeos_handler(write != 0, name, name_len, data, len, capacity) : EDGEOS_NO_HANDLER;
}

#endif /* EDGEOS_HOST_TEST */

#ifdef EDGEOS_TCP
#include <tcp/tcp.h>
#endif

#ifdef __cplusplus
}
#endif
#endif /* EDGEOS_H */
