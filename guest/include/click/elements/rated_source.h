/* RatedSource: a packet for each token of a bucket that holds 20 ms of the rate.
 * Handlers besides those of all sources: rate (read, write). */
#define SOURCE_STATE  \
    click_bucket bucket; \
    uint64_t rate;
#define SOURCE_START .rate = ARG_RATE
#include <click/source.h>

static void ME(timer)(void) {}

/* Whether one is due; if not, the timer is set for it. */
static bool ME(is_time)(void) {
    if (!ME(may_make)()) return false;
    if (!S.bucket.at) S.bucket = (click_bucket){CLICK_TOKEN, click_now};
    click_bucket_fill(&S.bucket, S.rate, S.rate / 50 ? S.rate / 50 : 1);
    if (S.bucket.units >= CLICK_TOKEN) return true;
    ME(due) = click_now + click_bucket_wait(&S.bucket, S.rate, CLICK_TOKEN);
    return false;
}

__attribute__((unused)) static click_packet *ME(pull)(uint32_t port) {
    (void)port;
    if (!ME(is_time)()) return NULL;
    S.bucket.units -= CLICK_TOKEN;
    return ME(make)();
}

__attribute__((unused)) static bool ME(task)(void) {
    for (click_packet *p; (p = ME(pull)(0));) OUT(0, p);
    return false;
}

static void ME(read_rate)(click_text *out) { click_text_unsigned(out, S.rate); }

static bool ME(write_rate)(const char *text, uint32_t len) {
    uint64_t rate;
    if (!click_parse_unsigned(text, len, &rate) || rate == 0 || rate > 1000000000) return false;
    S.rate = rate;
    return true;
}
