/* tcp.h: TCP for the connections of one FWP, when edgeos.h is included with EDGEOS_TCP defined (edgeos build --tcp).
 *
 * The service stays as it is for a listener: it gets EDGEOS_OPEN, EDGEOS_DATA and so on and answers by edgeos_send and its
 * kin. Below it, instead of the system's TCP, packets come from a port for packets, and what TCP does for a server is done
 * here, in the client's own FWP (RFC 9293, 5681, 5961, 6298, 6582, 6928; no timestamps, no selective acknowledgement).
 *
 * Settings, as -D:
 *     EDGEOS_TCP_CONNECTIONS  connections of one FWP, a power of two up to 4096 (default 64); one more is refused
 *     EDGEOS_TCP_MEMORY       bytes for what is under way, of all of them, a multiple of 1024 from 16384 (default 131072)
 *     EDGEOS_TCP_SEGMENT      bytes of the largest segment over IPv4, 536 or more (default 1460)
 *
 * It needs the grants timer and random. */
#ifndef EDGEOS_TCP_H
#define EDGEOS_TCP_H

#include <stdbool.h>

#ifndef EDGEOS_TCP_CONNECTIONS
#define EDGEOS_TCP_CONNECTIONS 64
#endif
#ifndef EDGEOS_TCP_MEMORY
#define EDGEOS_TCP_MEMORY 131072
#endif
#ifndef EDGEOS_TCP_SEGMENT
#define EDGEOS_TCP_SEGMENT 1460
#endif

_Static_assert(EDGEOS_TCP_CONNECTIONS >= 1 && EDGEOS_TCP_CONNECTIONS <= 4096 &&
                   (EDGEOS_TCP_CONNECTIONS & (EDGEOS_TCP_CONNECTIONS - 1)) == 0,
               "EDGEOS_TCP_CONNECTIONS must be a power of two from 1 to 4096");
_Static_assert(EDGEOS_TCP_MEMORY >= 16384 && EDGEOS_TCP_MEMORY <= 67108864 - 1024 && EDGEOS_TCP_MEMORY % 1024 == 0,
               "EDGEOS_TCP_MEMORY must be a multiple of 1024, from 16384 to less than 64 MiB");
_Static_assert(EDGEOS_TCP_SEGMENT >= 536 && EDGEOS_TCP_SEGMENT + 78 <= EDGEOS_SLOT_SIZE,
               "EDGEOS_TCP_SEGMENT must be 536 or more, and fit a slot with its headers (78)");
_Static_assert(EDGEOS_HEADROOM == 0, "EDGEOS_TCP has no room of the guest's in front of what it hands over");
#ifdef EDGEOS_OWN_BURST
#error "EDGEOS_TCP has a burst of its own: define edgeos_handle instead"
#endif

#ifdef EDGEOS_HOST_TEST
/* The host's part, which a test's driver defines. */
#define TCP_EXPORT
extern edgeos_message edgeos_messages[EDGEOS_SLOTS];
extern int32_t edgeos_verdicts[EDGEOS_SLOTS];
extern uint32_t edgeos_current;
int32_t edgeos_import_emit(uint32_t index, int32_t port, const void *data, uint32_t len);
int32_t edgeos_import_stream(uint32_t index, uint64_t flow, int32_t to, int32_t kind, const void *data, uint32_t len);
int32_t edgeos_import_timer(uint64_t delay_ns, uint64_t token);
int32_t edgeos_import_random(void *data, uint32_t len);
static inline int edgeos_timer(uint64_t delay_ns, uint64_t token) { return edgeos_import_timer(delay_ns, token); }
#else
#define TCP_EXPORT __attribute__((export_name("edgeos_burst")))
#endif

/* In this order: each stands on those before it. */
#include <tcp/wire.h>
#include <tcp/state.h>
#include <tcp/blocks.h>
#include <tcp/connection.h>
#include <tcp/congestion.h>
#include <tcp/output.h>
#include <tcp/service.h>
#include <tcp/input.h>
#include <tcp/burst.h>

#endif /* EDGEOS_TCP_H */
