/* RatedUnqueue, BandwidthRatedUnqueue: pull while the bucket has LEAST units, COST(p) tokens a packet, and push.
 * Handlers: rate, active (read, write), count (read), reset (write). */
static struct {
    click_bucket bucket;
    uint64_t rate, packets;
    bool stopped;
} S = {.rate = ARG_RATE, .stopped = !ARG_ACTIVE};

static void ME(timer)(void) {} /* what a timer is for is that tasks run */

static bool ME(task)(void) {
    if (S.stopped) return false;
    click_bucket_fill(&S.bucket, S.rate, CAPACITY(S.rate));
    while (S.bucket.units >= LEAST) {
        click_packet *p = IN(0);
        if (!p) return false;
        S.packets++;
        S.bucket.units -= (int64_t)(COST(p)) * CLICK_TOKEN;
        OUT(0, p);
    }
    ME(due) = click_now + click_bucket_wait(&S.bucket, S.rate, LEAST);
    return false;
}

#include <click/switch.h>

static void ME(read_rate)(click_text *out) { click_text_unsigned(out, S.rate); }

static bool ME(write_rate)(const char *text, uint32_t len) {
    uint64_t rate;
    if (!click_parse_unsigned(text, len, &rate) || rate == 0 || rate > RATE_MAX) return false;
    S.rate = rate;
    return true;
}

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.bucket = (click_bucket){0, 0};
    S.packets = 0;
    return true;
}
