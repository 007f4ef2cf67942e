/* Says that flows are over, as the first byte of a packet's payload (offset 42) says, with the number n behind it (u32):
 * c closes the packet's own flow, d does so twice, n closes flow n, a flows 1 to n, i the own flow under index n, t its own
 * flow in n milliseconds, k its own and traps, m its own and makes the packet a k, g its own after computing for n milliseconds,
 * s computes alone, x asks for what there is not, anything else does nothing. Byte 5: the verdict. The last 12 bytes become the count of messages of this FWP, the number of the flow (u32
 * each), and what the last call answered (i32). */
#include <edgeos.h>

EDGEOS_COUNTER(accepted);
EDGEOS_COUNTER(late);

static uint32_t seen;

static int32_t closed(int32_t answer) {
    accepted.value += answer == 0;
    return answer;
}

static int32_t close_under(uint32_t index, uint64_t flow) {
    return closed(edgeos_import_stream(index, flow, EDGEOS_BACK, EDGEOS_CLOSED, (void *)0xffffffffu, 0xffffffffu));
}

static int32_t close_all(uint32_t last) {
    int32_t answer = -1;
    for (uint32_t flow = 1; flow <= last; flow++) answer = closed(edgeos_close(flow));
    return answer;
}

static int32_t ask_for_what_there_is_not(uint64_t flow) {
    return (edgeos_close(0) & edgeos_close(UINT64_MAX) & edgeos_close(flow + (1ull << 32)) & edgeos_finish(flow) &
            edgeos_send(flow, &seen, 4) & edgeos_forward_finish(flow, 0) &
            edgeos_import_stream(edgeos_current, flow, EDGEOS_DROP, EDGEOS_CLOSED, 0, 0) &
            edgeos_import_stream(edgeos_current, flow, 0, EDGEOS_CLOSED, 0, 0));
}

static int32_t compute(uint32_t milliseconds) {
    const uint64_t until = edgeos_clock() + milliseconds * 1000000ull;
    while (edgeos_clock() < until) continue;
    return 0;
}

static int32_t act(const edgeos_message *m, uint32_t n) {
    switch (m->data[42]) {
    case 'c': return closed(edgeos_close(m->flow));
    case 'd': return closed(edgeos_close(m->flow)) | closed(edgeos_close(m->flow));
    case 'n': return closed(edgeos_close(n));
    case 'a': return close_all(n);
    case 'i': return close_under(n, m->flow);
    case 't': return edgeos_timer(n * 1000000ull, m->flow);
    case 'k': edgeos_close(m->flow), __builtin_trap();
    case 'x': return ask_for_what_there_is_not(m->flow);
    case 'm': m->data[42] = 'k'; return closed(edgeos_close(m->flow));
    case 'g': compute(n); return closed(edgeos_close(m->flow));
    case 's': return compute(n);
    default: return 0;
    }
}

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_TIMER) {
        late.value++;
        closed(edgeos_close(*(const uint64_t *)m->data));
        return EDGEOS_DONE;
    }
    if (m->len < 60) return EDGEOS_DROP;
    seen++;
    uint32_t n;
    __builtin_memcpy(&n, m->data + 43, sizeof n);
    const uint32_t words[3] = {seen, (uint32_t)m->flow, (uint32_t)act(m, n)};
    __builtin_memcpy(m->data + m->len - 12, words, sizeof words);
    return (int8_t)m->data[47];
}
