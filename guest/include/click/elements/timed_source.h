/* TimedSource: a packet every ARG_INTERVAL nanoseconds. Handlers besides those of all sources: interval (read, write). */
#define SOURCE_STATE uint64_t next, interval;
#define SOURCE_START .interval = ARG_INTERVAL
#include <click/source.h>

static void ME(timer)(void) {}

static bool ME(task)(void) {
    if (!ME(may_make)()) return false;
    if (!S.next) S.next = click_now + S.interval;
    if (S.next <= click_now) {
        S.next += S.interval;
        if (S.next <= click_now) S.next = click_now + S.interval; /* what was missed is not made up for */
        click_packet *p = ME(make)();
        if (p) OUT(0, p);
    }
    ME(due) = S.next;
    return false;
}

static void ME(read_interval)(click_text *out) { click_text_decimal(out, S.interval, 9); }

/* Seconds, with up to nine decimals. */
static bool ME(write_interval)(const char *text, uint32_t len) {
    uint64_t interval;
    if (!click_parse_decimal(text, len, 9, &interval) || interval < 1000000) return false;
    S.interval = interval;
    S.next = 0;
    return true;
}
