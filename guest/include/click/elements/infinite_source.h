/* InfiniteSource: ARG_BURST packets each time it is its turn, as long as they find a way out; then it waits a millisecond. */
#define SOURCE_STATE
#define SOURCE_START
#include <click/source.h>

#define WAIT_NS 1000000u

static void ME(timer)(void) {}

__attribute__((unused)) static bool ME(task)(void) {
    const uint64_t before = refused.value + no_buffer.value;
    for (uint32_t n = 0; n < ARG_BURST && ME(may_make)(); n++) {
        click_packet *p = ME(make)();
        if (p) OUT(0, p);
    }
    if (!ME(may_make)()) return false;
    if (refused.value + no_buffer.value == before) return true;
    ME(due) = click_now + WAIT_NS;
    return false;
}

__attribute__((unused)) static click_packet *ME(pull)(uint32_t port) {
    (void)port;
    return ME(may_make)() ? ME(make)() : NULL;
}
#undef WAIT_NS
