/* Hands on what a client sends by edgeos_forward, as much as there is room for now and the rest when there is room again; what
 * comes back goes to the client by verdict. */
#include <edgeos.h>
#include <string.h>

enum { FLOWS = 4, KEPT = 160 << 10 };

EDGEOS_COUNTER(cut_short);

static struct {
    uint64_t flow;
    uint32_t len;
    int ended;
    uint8_t bytes[KEPT];
} kept[FLOWS];

static int slot_of(uint64_t flow) {
    for (int i = 0; i < FLOWS; i++)
        if (kept[i].flow == flow) return i;
    return -1;
}

static void go_on(int i) {
    if (kept[i].len > 0) {
        const int32_t taken = edgeos_forward(kept[i].flow, 0, kept[i].bytes, kept[i].len);
        if (taken < 0) __builtin_trap();
        if ((uint32_t)taken < kept[i].len) cut_short.value++;
        kept[i].len -= (uint32_t)taken;
        memmove(kept[i].bytes, kept[i].bytes + taken, kept[i].len);
    }
    if (kept[i].len == 0 && kept[i].ended && edgeos_forward_finish(kept[i].flow, 0) == 0) kept[i].ended = 0;
}

int edgeos_handle(edgeos_message *m) {
    if (m->direction == EDGEOS_REVERSE) return 0;
    int i = slot_of(m->flow);
    if (m->kind == EDGEOS_OPEN) {
        i = slot_of(0);
        if (i < 0) __builtin_trap();
        kept[i].flow = m->flow;
        kept[i].len = 0;
        kept[i].ended = 0;
        return 0;
    }
    if (i < 0) return EDGEOS_DROP;
    if (m->kind == EDGEOS_DATA) {
        if (kept[i].len + m->len > KEPT) __builtin_trap();
        memcpy(kept[i].bytes + kept[i].len, m->data, m->len);
        kept[i].len += m->len;
        go_on(i);
        return EDGEOS_DONE;
    }
    if (m->kind == EDGEOS_ROOM || m->kind == EDGEOS_HALF_CLOSED) {
        kept[i].ended |= m->kind == EDGEOS_HALF_CLOSED;
        go_on(i);
        return EDGEOS_DONE;
    }
    if (m->kind == EDGEOS_CLOSED) kept[i].flow = 0;
    return 0;
}
