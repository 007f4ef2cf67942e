/* runtime.h: what every configuration's C begins with. The compiler (src/edgeos/click/emit.py) writes, in this order:
 *
 *     #define CLICK_POOL, CLICK_HOLDS, CLICK_TIMERS        what its elements need
 *     #include <click/runtime.h>
 *     for each element: #define ME(x), N_INPUTS, N_OUTPUTS, ARG_…; its connections; its template; #undef
 *     click_receive, click_tasks, click_timers, click_next_due, click_start; edgeos_handler
 *     #include <click/main.h>
 *
 * Templates are included once for each instance: ME(x) is the instance's own x.
 */
#ifndef CLICK_RUNTIME_H
#define CLICK_RUNTIME_H

#include <click/check_ip.h>
#include <click/check_transport.h>
#include <click/ethernet.h>
#include <click/ip.h>
#include <click/ip_options.h>
#include <click/packet.h>
#include <click/route.h>
#include <click/text.h>

#define S ME(state)
#define OUT(port, p) ME(out)(port, p)
#define IN(port) ME(in)(port)

#define CLICK_ROUNDS 1024u /* turns that tasks get at the end of one burst */
#define CLICK_NEVER UINT64_MAX

static uint64_t click_random_state;

/* A number that is random enough for choices, and not for keys. */
__attribute__((unused)) static uint32_t click_random(void) {
    uint64_t x = click_random_state ? click_random_state : click_now | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    click_random_state = x;
    return (uint32_t)(x * 0x2545f4914f6cdd1dull >> 32);
}

#endif /* CLICK_RUNTIME_H */
