/* An echo service (RFC 862) over connections and datagrams: whatever comes, bytes and the end of them, goes back. */
#include <edgeos.h>

int edgeos_handle(edgeos_message *m) {
    (void)m;
    return EDGEOS_BACK;
}
