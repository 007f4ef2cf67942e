/* Uses what it was granted, as the first byte of a packet's payload (offset 42) says: t sets a timer of token byte 2 after
 * byte 1 milliseconds, x ends it, f sets timers until there are too many, c writes the time behind the payload's first
 * byte, r writes 32 random bytes there, b asks for randomness outside the memory. Each packet goes on; a timer's token
 * goes on as a packet of its own. */
#include <edgeos.h>
#include <string.h>

EDGEOS_COUNTER(fired);
EDGEOS_COUNTER(last_token);
EDGEOS_COUNTER(refused);

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_TIMER) {
        uint64_t token;
        memcpy(&token, m->data, sizeof token);
        fired.value++;
        last_token.value = token;
        if (token == 250) return 0;   /* not allowed */
        if (token == 251) return EDGEOS_DROP;
        uint8_t frame[64] = {0};
        memcpy(frame, &token, sizeof token);
        edgeos_emit(0, frame, sizeof frame);
        return EDGEOS_DONE;
    }
    uint8_t *p = m->data + 42;
    if (p[0] == 't') refused.value += edgeos_timer(p[1] * 1000000ull, p[2]) != 0;
    if (p[0] == 'x') refused.value += edgeos_timer(UINT64_MAX, p[2]) != 0;
    if (p[0] == 'f')
        for (uint64_t token = 1000; edgeos_timer(1000000000000ull, token) == 0; token++) refused.value = token - 999;
    if (p[0] == 'c') {
        uint64_t now = edgeos_clock();
        memcpy(p + 1, &now, sizeof now);
    }
    if (p[0] == 'r') refused.value += edgeos_random(p + 1, 32) != 0;
    if (p[0] == 'b') refused.value = (edgeos_random((void *)0xfffffff0u, 32) != 0) + (edgeos_random(p, 65537) != 0);
    return 0;
}
