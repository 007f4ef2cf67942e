/* Fuzzes all Click elements at once on the host, where the sanitizers see every read and write: everything.click, compiled
 * to C by `edgeos click build --c` (the Makefile does). Bytes of a buffer that are not part of its packet are out of bounds.
 *
 * Input: steps until it ends. A step is one byte: 0 to 31 brings a packet in at the device of the lower four bits; 32 to 63
 * lets time pass and brings a timer; others read (an odd one: write) a handler. A packet has a byte that says how it looks
 * (a frame made sound, or the bytes as they are), two of length, and its bytes. A handler has a byte for the length of its
 * name, one for that of the value, and both. State stays from input to input, as in a guest that lives long.
 */
#include "everything.c"

#include <stdlib.h>
#include <string.h>

#define STRIDE (EDGEOS_SLOT_SIZE + 64)

edgeos_message edgeos_messages[EDGEOS_SLOTS];
int32_t edgeos_verdicts[EDGEOS_SLOTS];
uint32_t edgeos_current;

static uint8_t slots[64 + EDGEOS_SLOTS * STRIDE];
static uint64_t now = 1700000000000000000u;
static uint32_t pending, emitted;

int edgeos_emit(int port, const void *data, uint32_t len) {
    if (port < EDGEOS_BACK || port == EDGEOS_DROP || port > 15 || len > EDGEOS_SLOT_SIZE) abort();
    if (edgeos_current >= EDGEOS_SLOTS) abort();
    uint8_t *copy = malloc(len ? len : 1); /* all of it can be read */
    if (!copy) abort();
    memcpy(copy, data, len);
    free(copy);
    return emitted++ < 64 ? 0 : -1;
}

int edgeos_timer(uint64_t delay_ns, uint64_t token) {
    (void)delay_ns;
    if (token != 0) abort();
    return 0;
}

static void run(void) {
    if (pending == 0) return;
    emitted = 0;
    edgeos_burst(0, pending);
    for (uint32_t slot = 0; slot < pending; slot++) {
        const edgeos_message *m = &edgeos_messages[slot];
        const uint8_t *room = slots + (size_t)slot * STRIDE;
        const int32_t verdict = edgeos_verdicts[slot];
        if (verdict < EDGEOS_DONE || verdict > 15) abort();
        if (m->len > EDGEOS_SLOT_SIZE || m->data < room || m->data + m->len > room + STRIDE) abort();
    }
    pending = 0;
}

static uint8_t *message(uint8_t kind, uint8_t port, uint32_t len) {
    edgeos_message *m = &edgeos_messages[pending];
    uint8_t *data = slots + 64 + (size_t)pending * STRIDE;
    CLICK_EXPOSE(data - 64, STRIDE);
    *m = (edgeos_message){.data = data, .len = len, .capacity = EDGEOS_SLOT_SIZE, .kind = kind, .port = port,
                          .direction = port != 0, .flow = 1, .time_ns = now};
    CLICK_HIDE(data - 64, 64);
    CLICK_HIDE(data + len, EDGEOS_SLOT_SIZE - len);
    edgeos_verdicts[pending++] = INT32_MIN;
    return data;
}

/* Versions, lengths and checksums as they should be, so that packets get beyond the checks. */
static void make_sound(uint8_t *frame, uint32_t len, uint8_t how) {
    if (len < 34) return;
    uint8_t *ip = frame + 14;
    click_put16(frame + 12, 0x0800);
    ip[0] = (uint8_t)(0x40 | (how & 2 ? 6 : 5));
    if (len < 14 + click_ip_header_len(ip)) return;
    click_put16(ip + IP_LENGTH, (uint16_t)(len - 14));
    if (how & 4) ip[IP_PROTOCOL] = how & 8 ? IP_TCP : how & 16 ? IP_ICMP : IP_UDP;
    if (how & 32) click_put16(ip + IP_FRAGMENT, 0);
    click_ip_set_sum(ip);
    uint8_t *transport = click_ip_payload(ip);
    const uint32_t rest = len - 14 - click_ip_header_len(ip);
    if (ip[IP_PROTOCOL] == IP_UDP && rest >= 8) {
        click_put16(transport + 4, (uint16_t)rest);
        click_put16(transport + 6, 0);
    } else if (ip[IP_PROTOCOL] == IP_TCP && rest >= 20) {
        transport[12] = 0x50;
        click_put16(transport + 16, 0);
        click_put_raw16(transport + 16, click_transport_sum(ip, transport, rest));
    } else if (ip[IP_PROTOCOL] == IP_ICMP && rest >= 8) {
        click_put16(transport + 2, 0);
        click_put_raw16(transport + 2, click_sum_fold(click_sum(transport, rest)));
    }
}

static size_t packet(uint8_t device, const uint8_t *data, size_t size) {
    if (size < 3) return size;
    uint32_t len = (uint32_t)(data[1] | data[2] << 8) % (EDGEOS_SLOT_SIZE + 1);
    if (len > size - 3) len = (uint32_t)(size - 3);
    uint8_t *frame = message(EDGEOS_PACKET, device, len);
    if (len) memcpy(frame, data + 3, len);
    if (data[0] & 1) make_sound(frame, len, data[0]);
    return 3 + len;
}

static size_t handler(bool write, const uint8_t *data, size_t size) {
    static char value[2048];
    if (size < 2) return size;
    size_t name_len = data[0] % 40, len = data[1];
    data += 2, size -= 2;
    if (name_len > size) name_len = size;
    if (len > size - name_len) len = size - name_len;
    char *name = malloc(name_len ? name_len : 1);
    if (!name) abort();
    memcpy(name, data, name_len);
    memcpy(value, data + name_len, len);
    const int32_t answer = edgeos_handler(write, name, (uint32_t)name_len, value, (uint32_t)len, sizeof value);
    if (answer > (int32_t)sizeof value) abort();
    free(name);
    return 2 + name_len + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool started;
    if (!started) edgeos_init(NULL, 0);
    started = true;
    while (size) {
        const uint8_t step = *data++;
        size--;
        size_t used = 0;
        if (pending == 32) run();
        if (step < 32) {
            used = packet(step & 15, data, size);
        } else if (step < 64) {
            now += (uint64_t)(step - 31) * 100000000u;
            message(EDGEOS_TIMER, 0, 8);
            run();
        } else {
            run(); /* handlers come between bursts */
            used = handler(step & 1, data, size);
        }
        data += used;
        size -= used;
    }
    run();
    return 0;
}
