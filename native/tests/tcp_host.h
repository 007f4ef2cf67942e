/* tcp_host.h: plays the host for a guest that speaks TCP itself (EDGEOS_TCP), built for this machine: packets in, packets
 * out, the one timer, time and randomness. Everything is a function of the seed and of what is brought in.
 *
 * The program that includes this defines host_sent(), which gets each packet that the guest sends.
 */
#ifndef TEST_TCP_HOST_H
#define TEST_TCP_HOST_H

#include <edgeos.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_STRIDE (EDGEOS_SLOT_SIZE + 64)
#define HOST_BURST_MAX 32u
#define HOST_EMITS_MAX 64u
#define HOST_EMIT_BYTES_MAX (256u * 1024)
#define HOST_FLOWS 4096u
#define HOST_START_NS 1700000000000000000u
#define HOST_NEVER UINT64_MAX

#define HOST_CHECK(condition)                                                       \
    do {                                                                            \
        if (!(condition)) host_fail(__FILE__, __LINE__, #condition);                \
    } while (0)

edgeos_message edgeos_messages[EDGEOS_SLOTS];
int32_t edgeos_verdicts[EDGEOS_SLOTS];
uint32_t edgeos_current;

static struct {
    uint64_t now, alarm, token;
    uint64_t random;
    uint32_t pending, emits, emit_bytes, drawn;
    uint32_t refusals; /* of 256 emits, how many find no room */
    uint32_t packets_sent, dropped, refused;
    bool running, has_token, refuses_timers;
    uint32_t forgotten;        /* flows that it was asked to forget */
    uint8_t ended[HOST_FLOWS]; /* how often the guest has said of a flow that it is over */
} host;

static struct {
    uint32_t index, len;
    uint8_t data[EDGEOS_SLOT_SIZE];
} host_emissions[HOST_EMITS_MAX];

static uint8_t host_slots[64 + EDGEOS_SLOTS * HOST_STRIDE];
static char host_scene[160]; /* what is being played, for messages */

static void host_sent(const uint8_t *frame, uint32_t len);

__attribute__((noreturn)) static void host_fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s: %s, at %.6f s\n", file, line, host_scene, what,
            (double)(host.now - HOST_START_NS) / 1e9);
    fflush(stderr);
    abort();
}

/* xorshift64* (Vigna, 2016) */
static uint64_t host_random64(void) {
    host.random ^= host.random >> 12;
    host.random ^= host.random << 25;
    host.random ^= host.random >> 27;
    return host.random * 0x2545F4914F6CDD1Du;
}

/* A number from 0 to `below` - 1. */
static uint32_t host_random(uint32_t below) { return (uint32_t)((host_random64() >> 32) * below >> 32); }

static inline bool host_chance(uint32_t per_mille) { return host_random(1000) < per_mille; }

/* A guest as it is made from its checkpoint. */
static void host_reset_guest(void) {
    memset(tcp.connections, 0, sizeof tcp.connections);
    memset(tcp.flows, 0, sizeof tcp.flows);
    memset(tcp.dirty, 0, sizeof tcp.dirty);
    tcp.free_block = tcp.fresh_blocks = tcp.used_blocks = tcp.stored_blocks = 0;
    tcp.connection_count = 0;
    tcp_starved = false;
    tcp_alarm_ns = 0;
    tcp_earliest = UINT64_MAX;
    tcp_malformed.value = tcp_opened.value = tcp_refused.value = tcp_repeated.value = tcp_given_up.value = 0;
}

static void host_reset(uint64_t seed) {
    host_reset_guest();
    memset(&host, 0, sizeof host);
    host.now = HOST_START_NS;
    host.alarm = HOST_NEVER;
    host.random = (seed + 1) * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 8; i++) host_random64();
}

int32_t edgeos_import_emit(uint32_t index, int32_t port, const void *data, uint32_t len) {
    HOST_CHECK(host.running && index < host.pending && port == EDGEOS_BACK && len <= EDGEOS_SLOT_SIZE);
    HOST_CHECK(host.emits == 0 || host_emissions[host.emits - 1].index <= index);
    const bool full = host.emits == HOST_EMITS_MAX || host.emit_bytes + len > HOST_EMIT_BYTES_MAX;
    if (full || (host.refusals && host_random(256) < host.refusals)) {
        host.refused++;
        return -1;
    }
    host_emissions[host.emits].index = index;
    host_emissions[host.emits].len = len;
    memcpy(host_emissions[host.emits++].data, data, len);
    host.emit_bytes += len;
    return 0;
}

int32_t edgeos_import_timer(uint64_t delay_ns, uint64_t token) {
    HOST_CHECK(host.running);
    if (!host.has_token) host.token = token;
    host.has_token = true;
    HOST_CHECK(host.token == token); /* one timer is all that an FWP needs */
    if (host.refuses_timers) return -1;
    host.alarm = delay_ns == UINT64_MAX ? HOST_NEVER : host.now + delay_ns;
    return 0;
}

/* Half of what is drawn lies just below 2^32, so that sequence numbers wrap. No two are alike, so that connections are not. */
int32_t edgeos_import_random(void *data, uint32_t len) {
    HOST_CHECK(host.running && len == 4);
    const uint32_t number = ++host.drawn * 40503u % 65536;
    const uint32_t drawn = (host_random(2) ? 0xffff0000u : host_random(65536) << 16) | number;
    memcpy(data, &drawn, len);
    return 0;
}

/* Whether the flow is asked to be forgotten because nothing but noise came of it: here its next packet has the same number. */
static bool host_is_noise(uint32_t index, uint64_t flow) {
    struct tcp_segment s;
    edgeos_message *m = &edgeos_messages[index];
    return m->kind == EDGEOS_PACKET && !tcp_has_host_flow(flow) && !tcp_read(&s, m->data, m->len);
}

/* All that is asked of a flow is to forget it. */
int32_t edgeos_import_stream(uint32_t index, uint64_t flow, int32_t to, int32_t kind, const void *data, uint32_t len) {
    HOST_CHECK(host.running && index < host.pending && flow > 0 && flow < HOST_FLOWS);
    HOST_CHECK(to == EDGEOS_BACK && kind == EDGEOS_CLOSED && data == NULL && len == 0);
    host.forgotten++;
    if (!host_is_noise(index, flow) && host.ended[flow] < UINT8_MAX) host.ended[flow]++;
    return 0;
}

/* A message of the next burst, to be filled in. */
static uint8_t *host_message(uint8_t kind, uint64_t flow, uint32_t len) {
    HOST_CHECK(host.pending < HOST_BURST_MAX && len <= EDGEOS_SLOT_SIZE);
    uint8_t *data = host_slots + 64 + (size_t)host.pending * HOST_STRIDE;
    edgeos_messages[host.pending] = (edgeos_message){.data = data, .len = len, .capacity = EDGEOS_SLOT_SIZE,
                                                     .kind = kind, .flow = flow, .time_ns = host.now};
    edgeos_verdicts[host.pending++] = INT32_MIN;
    return data;
}

static void host_take_verdict(uint32_t slot) {
    const edgeos_message *m = &edgeos_messages[slot];
    const uint8_t *room = host_slots + 64 + (size_t)slot * HOST_STRIDE;
    const int32_t verdict = edgeos_verdicts[slot];
    HOST_CHECK(verdict == EDGEOS_BACK || verdict == EDGEOS_DONE || verdict == EDGEOS_DROP);
    HOST_CHECK(m->kind != EDGEOS_TIMER || verdict != EDGEOS_BACK);
    host.dropped += verdict == EDGEOS_DROP;
    if (verdict != EDGEOS_BACK) return;
    HOST_CHECK(m->len <= EDGEOS_SLOT_SIZE && m->data >= room && m->data + m->len <= room + EDGEOS_SLOT_SIZE);
    host.packets_sent++;
    host_sent(m->data, m->len);
}

/* Handles the burst; what leaves comes in the order that the kernel has it: emitted ones before their message. */
static void host_run(void) {
    if (host.pending == 0) return;
    const uint32_t count = host.pending;
    host.emits = host.emit_bytes = 0;
    host.running = true;
    edgeos_burst(0, count);
    host.running = false;
    host.pending = 0;
    for (uint32_t slot = 0, e = 0; slot < count; slot++) {
        for (; e < host.emits && host_emissions[e].index == slot; e++) {
            host.packets_sent++;
            host_sent(host_emissions[e].data, host_emissions[e].len);
        }
        host_take_verdict(slot);
    }
}

/* Brings a packet in; it is handled with the burst. The guest may answer in its slot, and writes behind the packet then:
 * so what it reads of one is tried on a copy that ends where the packet does. */
static void host_receive(uint64_t flow, const uint8_t *frame, uint32_t len) {
    struct tcp_segment s;
    uint8_t *copy = malloc(len + 1);
    if (host.pending == HOST_BURST_MAX) host_run();
    HOST_CHECK(copy);
    memcpy(copy + 1, frame, len);
    if (tcp_read(&s, copy + 1, len)) HOST_CHECK(s.payload + s.len <= copy + 1 + len);
    free(copy);
    memcpy(host_message(EDGEOS_PACKET, flow, len), frame, len);
}

/* Rings the timer if it is due. */
static void host_ring(void) {
    if (host.alarm > host.now) return;
    if (host.pending == HOST_BURST_MAX) host_run();
    host.alarm = HOST_NEVER;
    memcpy(host_message(EDGEOS_TIMER, 0, sizeof host.token), &host.token, sizeof host.token);
    host_run();
}

#endif /* TEST_TCP_HOST_H */
