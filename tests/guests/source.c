/* Sends as many bytes as a connection asks for with its first four bytes, by edgeos_send in pieces, going on when there is room
 * again; then ends its sending. Byte i is i * 31 + i / 256, cut to eight bits. Other bytes that come are counted. */
#include <edgeos.h>
#include <string.h>

enum { FLOWS = 256, PIECE = 8192 };

EDGEOS_COUNTER(cut_short);
EDGEOS_COUNTER(rooms);
EDGEOS_COUNTER(heard);

static struct {
    uint64_t flow;
    uint32_t sent, wanted;
} asked[FLOWS];

static void go_on(uint32_t slot) {
    while (asked[slot].sent < asked[slot].wanted) {
        static uint8_t piece[PIECE];
        const uint32_t left = asked[slot].wanted - asked[slot].sent, len = left < PIECE ? left : PIECE;
        for (uint32_t i = 0; i < len; i++) {
            const uint32_t at = asked[slot].sent + i;
            piece[i] = (uint8_t)(at * 31 + at / 256);
        }
        const int32_t taken = edgeos_send(asked[slot].flow, piece, len);
        if (taken < 0) return;
        asked[slot].sent += (uint32_t)taken;
        if ((uint32_t)taken < len) {
            cut_short.value++;
            return;
        }
    }
    edgeos_finish(asked[slot].flow);
}

static uint32_t slot_of(uint64_t flow) {
    for (uint32_t i = 0; i < FLOWS; i++)
        if (asked[i].flow == flow) return i;
    return FLOWS;
}

int edgeos_handle(edgeos_message *m) {
    uint32_t slot = slot_of(m->flow);
    if (m->kind == EDGEOS_ROOM && slot < FLOWS) {
        rooms.value++;
        go_on(slot);
    } else if (m->kind == EDGEOS_DATA && slot == FLOWS && m->len >= 4) {
        slot = slot_of(0);
        if (slot == FLOWS) return EDGEOS_DROP;
        asked[slot].flow = m->flow;
        asked[slot].sent = 0;
        memcpy(&asked[slot].wanted, m->data, 4);
        go_on(slot);
    } else if (m->kind == EDGEOS_DATA) {
        heard.value += m->len;
    } else if (m->kind == EDGEOS_CLOSED && slot < FLOWS) {
        asked[slot].flow = 0;
    }
    return EDGEOS_DONE;
}
