/* Sends everything back, one FWP for each connection. */
#include <edgeos.h>

int edgeos_handle(edgeos_message *m) {
    return m->kind == EDGEOS_DATA ? EDGEOS_BACK : EDGEOS_DONE;
}
