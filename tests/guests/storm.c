/* Opens as many connections to its first upstream as the first byte of a message says, and closes each as soon as it is open. */
#include <edgeos.h>

EDGEOS_COUNTER(asked);
EDGEOS_COUNTER(refused);
EDGEOS_COUNTER(opened);
EDGEOS_COUNTER(closed);

int edgeos_handle(edgeos_message *m) {
    if (m->direction == EDGEOS_UPSTREAM) {
        if (m->kind == EDGEOS_CLOSED) closed.value++;
        if (m->kind != EDGEOS_OPEN) return EDGEOS_DONE;
        opened.value++;
        edgeos_close(m->flow);
        return EDGEOS_DONE;
    }
    if (m->kind == EDGEOS_HALF_CLOSED) edgeos_close(m->flow);
    if (m->kind != EDGEOS_DATA) return EDGEOS_DONE;
    for (uint32_t count = m->data[0]; count > 0; count--) {
        if (edgeos_connect(0) < 0) refused.value++;
        else asked.value++;
    }
    return EDGEOS_DONE;
}
