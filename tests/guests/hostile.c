/* Attacks its host as the first byte of a UDP packet's payload says; 0 forwards. The numbers are those of tests/security. */
#include <edgeos.h>

enum {
    NONE, LENGTH_OVER, LENGTH_HUGE, POINTER_END, POINTER_WRAP, POINTER_TOP, VERDICT_MAX, VERDICT_MIN, VERDICT_BELOW,
    VERDICT_UNLINKED, VERDICT_OVER, LOOP, RECURSE, GROW_LEGAL, GROW_BEYOND, UNREACHABLE, DIVIDE, READ_OUTSIDE, BAD_CALL,
    SPOIL_NEXT, SPOIL_EARLIER, SPOIL_SLOTS, EMIT_HOSTILE, LIE_ABOUT_ROOM, SPOIL_ALL, STACK_C, EMIT_THEN_TRAP, LENGTH_ZERO
};

EDGEOS_COUNTER(accepted);

static volatile uint32_t zero;
static uint32_t (*volatile again)(uint32_t);

static uint32_t memory_end(void) { return (uint32_t)__builtin_wasm_memory_size(0) * 65536; }
static uint32_t recurse(uint32_t n) { return again(n + 1) + 1; }
static uint32_t recurse_on_stack(uint32_t n) {
    volatile uint8_t room[1024];
    room[n % 1024] = 1;
    return again(n + 1) + room[n % 1024];
}

static void grow_to_the_limit(void) {
    while (__builtin_wasm_memory_grow(0, 1) != (size_t)-1) {
    }
}

static void move_to(edgeos_message *m, uint32_t address) {
    uint8_t *to = (uint8_t *)(uintptr_t)address;
    __builtin_memcpy(to, m->data, m->len);
    m->data = to;
}

static void emit_raw(uint32_t index, int32_t port, uint32_t address, uint32_t len) {
    if (edgeos_import_emit(index, port, (const void *)(uintptr_t)address, len) == 0) accepted.value++;
}

static void emit_hostile(void) {
    const uint32_t end = memory_end();
    emit_raw(0, EDGEOS_DROP, 1024, 64);
    emit_raw(0, 1, 1024, 64);
    emit_raw(0, 16, 1024, 64);
    emit_raw(0, -3, 1024, 64);
    emit_raw(0, INT32_MAX, 1024, 64);
    emit_raw(0, INT32_MIN, 1024, 64);
    emit_raw(0, 0, end - 63, 64);
    emit_raw(0, 0, 0xffffffff, 1);
    emit_raw(0, 0, 0xffffffff, 64);
    emit_raw(0, 0, 1024, EDGEOS_SLOT_SIZE + 1);
    emit_raw(0, 0, 1024, 0xffffffff);
    emit_raw(0, 0, 0xffffff00, 0xffffffff);
}

static void spoil(void *from, uint32_t bytes, uint8_t value) { __builtin_memset(from, value, bytes); }

int edgeos_handle(edgeos_message *m) {
    if (m->len < 43) return 0;
    const uint32_t own = (uint32_t)(m - edgeos_messages);
    switch (m->data[42]) {
    case LENGTH_OVER: m->len = m->capacity + 1; return 0;
    case LENGTH_HUGE: m->len = 0xffffffff; return 0;
    case POINTER_END: m->data = (uint8_t *)(uintptr_t)(memory_end() - m->len + 1); return 0;
    case POINTER_WRAP: m->data = (uint8_t *)(uintptr_t)0xffffffff; return 0;
    case POINTER_TOP: m->data = (uint8_t *)(uintptr_t)(0u - m->len); return 0;
    case VERDICT_MAX: return INT32_MAX;
    case VERDICT_MIN: return INT32_MIN;
    case VERDICT_BELOW: return -4;
    case VERDICT_UNLINKED: return 1;
    case VERDICT_OVER: return 16;
    case LOOP:
        for (;;) zero = 0;
    case RECURSE: again = recurse; return (int)recurse(0);
    case GROW_LEGAL: grow_to_the_limit(), move_to(m, memory_end() - m->len); return 0;
    case GROW_BEYOND: grow_to_the_limit(), m->data = (uint8_t *)(uintptr_t)(memory_end() - m->len + 1); return 0;
    case UNREACHABLE: __builtin_trap();
    case DIVIDE: return (int)(m->len / zero);
    case READ_OUTSIDE: return *(volatile uint8_t *)(uintptr_t)(memory_end() + zero);
    case BAD_CALL: again = (uint32_t(*)(uint32_t))(uintptr_t)12345; return (int)again(0);
    case SPOIL_NEXT: spoil(m + 1, (EDGEOS_SLOTS - own - 1) * sizeof *m, 0xff); return 0;
    case SPOIL_EARLIER:
        for (uint32_t i = 0; i < own; i++) edgeos_verdicts[i] = 77;
        return 0;
    case SPOIL_SLOTS:
        spoil(m->data + EDGEOS_SLOT_STRIDE, (EDGEOS_SLOTS - own - 1) * EDGEOS_SLOT_STRIDE, 0xee);
        return 0;
    case EMIT_HOSTILE: emit_hostile(); return 0;
    case LIE_ABOUT_ROOM: m->capacity = 0xffffffff, m->kind = m->port = m->direction = 0xff, m->flow = m->time_ns = ~0ull; return 0;
    case SPOIL_ALL: spoil((void *)(uintptr_t)1024, memory_end() - 1024, 0xa5); return 0;
    case STACK_C: again = recurse_on_stack; return (int)recurse_on_stack(0);
    case EMIT_THEN_TRAP: emit_raw(0, 0, (uint32_t)(uintptr_t)m->data, m->len); __builtin_trap();
    case LENGTH_ZERO: m->len = 0; return 0;
    default: return 0;
    }
}
