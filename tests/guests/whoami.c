/* Tells each client who it is: the two ends of its connection, as edgeos_endpoints. Echoes what comes. */
#include <edgeos.h>

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN) edgeos_send(m->flow, m->data, m->len);
    return m->kind == EDGEOS_OPEN ? EDGEOS_DONE : EDGEOS_BACK;
}
