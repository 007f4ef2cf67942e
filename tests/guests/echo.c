/* Sends back what it gets, over connections and datagrams: by the verdict, or by edgeos_send when its configuration is "send". */
#include <edgeos.h>
#include <string.h>

EDGEOS_COUNTER(opened);
EDGEOS_COUNTER(closed);
EDGEOS_COUNTER(cut_short);

static int by_send;

void edgeos_init(const uint8_t *config, uint32_t len) { by_send = len == 4 && memcmp(config, "send", 4) == 0; }

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN) opened.value++;
    if (m->kind == EDGEOS_CLOSED) closed.value++;
    if (!by_send) return EDGEOS_BACK;
    if (m->kind == EDGEOS_DATA || m->kind == EDGEOS_DATAGRAM) {
        if (edgeos_send(m->flow, m->data, m->len) != (int32_t)m->len) cut_short.value++;
    }
    if (m->kind == EDGEOS_HALF_CLOSED) edgeos_finish(m->flow);
    return EDGEOS_DONE;
}
