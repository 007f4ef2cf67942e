/* click_driver.c: plays the host for a Click configuration that was compiled for this machine, and obeys click_harness.py.
 *
 * Commands come on stdin, answers leave on stdout, numbers in this machine's order:
 *     B time u64, count u32, then for each message kind u8, port u8, direction u8, flow u64, len u32, bytes
 *         count of what came of it u32, then for each verdict i32, direction u8, len u32, bytes; the alarm's time u64
 *     R name len u32, name                            status i32, len u32, bytes
 *     W name len u32, name, value len u32, value      the same
 */
#include <click/host.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRIDE (EDGEOS_SLOT_SIZE + 64)
#define EMITS_MAX 64

edgeos_message edgeos_messages[EDGEOS_SLOTS];
int32_t edgeos_verdicts[EDGEOS_SLOTS];
uint32_t edgeos_current;

static uint8_t slots[64 + EDGEOS_SLOTS * STRIDE];
static uint32_t cursor, first, count, emitted;
static uint64_t now, alarm_at = UINT64_MAX;
static struct {
    uint32_t index, len;
    int32_t verdict;
    uint8_t data[EDGEOS_SLOT_SIZE];
} emissions[EMITS_MAX];

static uint8_t *slot_data(uint32_t slot) { return slots + 64 + (size_t)slot * STRIDE; }

int edgeos_emit(int port, const void *data, uint32_t len) {
    if (emitted == EMITS_MAX || len > EDGEOS_SLOT_SIZE || count == 0) return -1;
    const uint32_t least = emitted ? emissions[emitted - 1].index : first, most = first + count - 1;
    emissions[emitted].index = edgeos_current < least ? least : edgeos_current > most ? most : edgeos_current;
    emissions[emitted].verdict = port;
    emissions[emitted].len = len;
    memcpy(emissions[emitted++].data, data, len);
    return 0;
}

int edgeos_timer(uint64_t delay_ns, uint64_t token) {
    if (token != 0) abort();
    alarm_at = delay_ns == UINT64_MAX ? UINT64_MAX : now + delay_ns;
    return 0;
}

static void get(void *to, size_t len) {
    if (len && fread(to, len, 1, stdin) != 1) exit(0);
}

static void put(const void *from, size_t len) { fwrite(from, 1, len, stdout); }

static uint32_t get32(void) {
    uint32_t value;
    get(&value, sizeof value);
    return value;
}

static void put_outcome(int32_t verdict, uint8_t direction, const uint8_t *data, uint32_t len) {
    put(&verdict, sizeof verdict);
    put(&direction, 1);
    put(&len, sizeof len);
    put(data, len);
}

static void take_message(uint32_t slot) {
    edgeos_message *m = &edgeos_messages[slot];
    uint8_t *data = slot_data(slot);
    CLICK_EXPOSE(data - 64, 64 + EDGEOS_SLOT_SIZE);
    memset(m, 0, sizeof *m);
    get(&m->kind, 1);
    get(&m->port, 1);
    get(&m->direction, 1);
    get(&m->flow, sizeof m->flow);
    m->len = get32();
    if (m->len > EDGEOS_SLOT_SIZE) abort();
    m->data = data;
    m->capacity = EDGEOS_SLOT_SIZE;
    m->time_ns = now;
    get(data, m->len);
    CLICK_HIDE(data - 64, 64);
    CLICK_HIDE(data + m->len, EDGEOS_SLOT_SIZE - m->len);
    edgeos_verdicts[slot] = INT32_MIN;
}

static void check_message(const edgeos_message *m, uint32_t slot) {
    const uint8_t *room = slot_data(slot) - 64;
    if (m->len > EDGEOS_SLOT_SIZE || m->data < room || m->data + m->len > slot_data(slot) + EDGEOS_SLOT_SIZE) {
        fprintf(stderr, "a message left its slot\n");
        abort();
    }
}

static void burst(void) {
    uint64_t time;
    get(&time, sizeof time);
    now = time;
    if (alarm_at <= now) alarm_at = UINT64_MAX;
    count = get32();
    if (count == 0 || count > 32) abort();
    if (cursor + count > EDGEOS_SLOTS) cursor = 0;
    first = cursor;
    cursor += count;
    emitted = 0;
    for (uint32_t i = 0; i < count; i++) take_message(first + i);
    edgeos_burst(first, count);
    const uint32_t total = count + emitted;
    put(&total, sizeof total);
    for (uint32_t slot = first, e = 0; slot < first + count; slot++) {
        const edgeos_message *m = &edgeos_messages[slot];
        for (; e < emitted && emissions[e].index <= slot; e++)
            put_outcome(emissions[e].verdict, edgeos_messages[emissions[e].index].direction, emissions[e].data,
                        emissions[e].len);
        check_message(m, slot);
        const int32_t verdict = edgeos_verdicts[slot];
        put_outcome(verdict, m->direction, m->data, verdict == EDGEOS_DONE || verdict == EDGEOS_DROP ? 0 : m->len);
    }
    put(&alarm_at, sizeof alarm_at);
    count = 0;
}

static void handler(int write) {
    static char name[4096], data[4096];
    const uint32_t name_len = get32();
    if (name_len > sizeof name) abort();
    get(name, name_len);
    uint32_t len = 0;
    if (write) {
        len = get32();
        if (len > sizeof data) abort();
        get(data, len);
    }
    const int32_t status = edgeos_handler(write, name, name_len, data, len, sizeof data);
    len = status > 0 ? (uint32_t)status : 0;
    put(&status, sizeof status);
    put(&len, sizeof len);
    put(data, len);
}

int main(void) {
    static char input[1 << 16];
    setvbuf(stdin, input, _IOFBF, sizeof input);
    edgeos_init(NULL, 0);
    for (int command; (command = getchar()) != EOF; fflush(stdout)) {
        if (command == 'B') {
            burst();
        } else {
            handler(command == 'W');
        }
    }
    return 0;
}
