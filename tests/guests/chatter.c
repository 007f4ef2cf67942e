/* Sends one byte at a time to its client's last two connections in turn, as many times in all as the first byte of a message says,
 * in tens. */
#include <edgeos.h>

EDGEOS_COUNTER(said);

static uint64_t flows[2];

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN) {
        flows[0] = flows[1];
        flows[1] = m->flow;
    }
    if (m->kind == EDGEOS_HALF_CLOSED) edgeos_close(m->flow);
    if (m->kind != EDGEOS_DATA) return EDGEOS_DONE;
    for (uint32_t count = m->data[0] * 10; count > 0; count--)
        if (edgeos_send(flows[count & 1], ".", 1) == 1) said.value++;
    return EDGEOS_DONE;
}
