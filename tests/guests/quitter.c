/* Echoes, until it is sent a "!": then it sends more than its client reads, closes, and answers what it may not. */
#include <edgeos.h>

enum { NOT_A_PORT = 99 };

int edgeos_handle(edgeos_message *m) {
    static uint8_t much[64 * 1024];
    if (m->kind != EDGEOS_DATA || m->data[0] != '!') return EDGEOS_BACK;
    for (int i = 0; i < 4; i++) edgeos_send(m->flow, much, sizeof much);
    edgeos_close(m->flow);
    return NOT_A_PORT;
}
