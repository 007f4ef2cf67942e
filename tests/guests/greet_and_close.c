/* Says a hundred thousand times "x" to who comes, and closes. */
#include <edgeos.h>
#include <string.h>

int edgeos_handle(edgeos_message *m) {
    if (m->kind != EDGEOS_OPEN) return EDGEOS_DONE;
    static uint8_t words[100000];
    memset(words, 'x', sizeof words);
    edgeos_send(m->flow, words, sizeof words);
    edgeos_close(m->flow);
    return EDGEOS_DONE;
}
