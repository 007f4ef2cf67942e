/* host.h: the guest ABI for the element library when it is built for the machine it is tested on (EDGEOS_HOST_TEST): what
 * edgeos.h declares for guests, with functions that the test's driver defines (tests/click_driver.c). */
#ifndef CLICK_HOST_H
#define CLICK_HOST_H

#include <edgeos.h>
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* as GCC has it */
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define CLICK_EXPOSE(at, n) __asan_unpoison_memory_region(at, n)
#define CLICK_HIDE(at, n) __asan_poison_memory_region(at, n)
#else
#define CLICK_EXPOSE(at, n) ((void)0)
#define CLICK_HIDE(at, n) ((void)0)
#endif

extern edgeos_message edgeos_messages[EDGEOS_SLOTS];
extern int32_t edgeos_verdicts[EDGEOS_SLOTS];
extern uint32_t edgeos_current;

int edgeos_emit(int port, const void *data, uint32_t len);
int edgeos_timer(uint64_t delay_ns, uint64_t token);
void edgeos_burst(uint32_t first, uint32_t count);

#endif /* CLICK_HOST_H */
