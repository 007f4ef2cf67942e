/* A packet function with a flaw: whoever sends it the words below gets it to run in circles.
 *
 * It shows what such a flaw costs: the FWP of that client, which is killed when its budget is over, and nobody else.
 *
 *     edgeos build examples/hostile.c
 */
#include <edgeos.h>

EDGEOS_COUNTER(inspected);

static const char magic[] = "EDGEOS-LOOP-FOREVER";
enum { MAGIC_LEN = sizeof magic - 1 };

static int holds_magic(const edgeos_message *m) {
    for (uint32_t at = 0; at + MAGIC_LEN <= m->len; at++) {
        uint32_t same = 0;
        while (same < MAGIC_LEN && m->data[at + same] == (uint8_t)magic[same]) same++;
        if (same == MAGIC_LEN) return 1;
    }
    return 0;
}

int edgeos_handle(edgeos_message *m) {
    inspected.value++;
    while (holds_magic(m)) inspected.value++; /* the flaw: nothing here ever changes the message */
    return 0;
}
