/* bridge: forwards every message unchanged and counts it. See README.md. */
#include <edgeos.h>

EDGEOS_COUNTER(packets);
EDGEOS_COUNTER(bytes);

int edgeos_handle(edgeos_message *m) {
    packets.value++;
    bytes.value += m->len;
    return 0;
}
