/* Echoes, until it is sent a "!", which it does not survive. */
#include <edgeos.h>

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_DATA && m->data[0] == '!') __builtin_trap();
    return EDGEOS_BACK;
}
