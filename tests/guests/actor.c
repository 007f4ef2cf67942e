/* Does what packets tell it, for tests of conservation: in stage s (the template's configuration, one digit) byte 2 s of a
 * UDP packet's payload says what to do and byte 2 s + 1 how often or where. Other packets are forwarded. */
#include <edgeos.h>

enum { FORWARD, DROP, BACK, EMIT, EMIT_BACK, TRAP, BAD_LENGTH, BAD_PORT, LOOP, BAD_POINTER, SHORTEN, LENGTHEN, MOVE, PORT };

#define PAYLOAD 42

EDGEOS_COUNTER(handled);
static uint32_t stage;

void edgeos_init(const uint8_t *config, uint32_t len) { stage = len ? config[0] - '0' : 0; }

static void emit(const edgeos_message *m, int port, uint32_t times) {
    for (uint32_t i = 0; i < times; i++) edgeos_emit(port, m->data, m->len);
}

int edgeos_handle(edgeos_message *m) {
    handled.value++;
    if (m->len < PAYLOAD + 2 * stage + 2 || m->data[12] != 8 || m->data[13] != 0) return 0;
    const uint8_t act = m->data[PAYLOAD + 2 * stage], parameter = m->data[PAYLOAD + 2 * stage + 1];
    switch (act) {
    case DROP: return EDGEOS_DROP;
    case BACK: return EDGEOS_BACK;
    case EMIT: emit(m, 0, parameter); return 0;
    case EMIT_BACK: emit(m, EDGEOS_BACK, parameter); return EDGEOS_DROP;
    case TRAP: __builtin_trap();
    case BAD_LENGTH: m->len = m->capacity + 1 + parameter; return 0;
    case BAD_PORT: return 2 + parameter;
    case LOOP:
        for (volatile uint32_t i = 0;; i++) {
        }
    case BAD_POINTER: m->data = (uint8_t *)(uintptr_t)(0xffffff00u | parameter); return 0;
    case SHORTEN: m->len = parameter; return 0;
    case LENGTHEN: m->len = m->capacity; return 0;
    case MOVE: m->data += parameter % 16, m->len -= parameter % 16; return 0;
    case PORT: return parameter % 2;
    default: return 0;
    }
}
