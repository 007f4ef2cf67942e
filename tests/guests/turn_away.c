/* Closes each connection as soon as it is open, without a word. */
#include <edgeos.h>

EDGEOS_COUNTER(turned_away);

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN && edgeos_close(m->flow) == 0) turned_away.value++;
    return EDGEOS_DONE;
}
