/* Opens as many connections to its first upstream as the first two bytes of a message say, and keeps them. To each that opens it
 * says "hello". */
#include <edgeos.h>

EDGEOS_COUNTER(asked);
EDGEOS_COUNTER(refused);
EDGEOS_COUNTER(opened);
EDGEOS_COUNTER(closed);

int edgeos_handle(edgeos_message *m) {
    if (m->direction == EDGEOS_UPSTREAM) {
        if (m->kind == EDGEOS_OPEN) {
            opened.value++;
            edgeos_send(m->flow, "hello", 5);
        }
        if (m->kind == EDGEOS_CLOSED) closed.value++;
        return EDGEOS_DONE;
    }
    if (m->kind == EDGEOS_HALF_CLOSED) edgeos_close(m->flow);
    if (m->kind == EDGEOS_DATA && m->len >= 2) {
        for (uint32_t count = m->data[0] | (uint32_t)m->data[1] << 8; count > 0; count--) {
            if (edgeos_connect(0) < 0) refused.value++;
            else asked.value++;
        }
        if (edgeos_connect(1) >= 0) __builtin_trap(); /* there is no second one */
        if (m->len >= 3) __builtin_trap();
    }
    return EDGEOS_DONE;
}
