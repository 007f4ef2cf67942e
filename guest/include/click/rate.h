/* rate.h: token buckets, and rates as moving averages. Time is that of the packets (click_now). */
#ifndef CLICK_RATE_H
#define CLICK_RATE_H

#include <click/bytes.h>
#include <stdbool.h>

#define CLICK_TOKEN 1000000000ll /* units of a token: what a rate of one a second gains each second, in nanoseconds */

/* Tokens may fall below zero: what is taken is paid back before more is given. */
typedef struct click_bucket {
    int64_t units;
    uint64_t at; /* when it was last filled; 0: never, then it is full */
} click_bucket;

/* Adds what has come at `rate` tokens a second, up to `capacity` tokens. */
static inline void click_bucket_fill(click_bucket *b, uint64_t rate, uint64_t capacity) {
    const int64_t most = (int64_t)capacity * CLICK_TOKEN;
    const uint64_t elapsed = click_now - b->at;
    if (b->at == 0 || b->units >= most) { /* there may be more than fits, when the rate was lowered */
        b->units = most;
    } else if (rate && elapsed >= (uint64_t)(most - b->units) / rate + 1) {
        b->units = most;
    } else {
        b->units += (int64_t)(elapsed * rate);
    }
    b->at = click_now;
}

/* Nanoseconds until there are so many units; `rate` is not 0. */
static inline uint64_t click_bucket_wait(const click_bucket *b, uint64_t rate, int64_t units) {
    return b->units >= units ? 0 : ((uint64_t)(units - b->units) + rate - 1) / rate;
}

/* ---- Rates: what comes in a hundredth of a second, averaged with a weight of 1/16 for each ---- */

#define CLICK_EPOCH_NS 10000000u
#define CLICK_EPOCHS_A_SECOND 100u

typedef struct click_rate {
    uint64_t epoch_end; /* 0: nothing has come yet */
    uint64_t before;    /* the count at its start */
    uint64_t average;   /* a hundredth of a second's, in 1/1024 */
} click_rate;

/* Closes the hundredths that are over; `count` is all that had come until now. */
static inline void click_rate_update(click_rate *r, uint64_t count) {
    if (click_now < r->epoch_end) return;
    if (r->epoch_end == 0) {
        r->epoch_end = click_now + CLICK_EPOCH_NS;
        r->before = count;
        return;
    }
    const uint64_t over = (click_now - r->epoch_end) / CLICK_EPOCH_NS; /* those in which nothing came */
    const int64_t latest = (int64_t)((count - r->before) << 10);
    r->average = (uint64_t)((int64_t)r->average + (latest - (int64_t)r->average) / 16);
    for (uint64_t n = 0; n < over && r->average; n++) r->average = n < 256 ? r->average - (r->average + 15) / 16 : 0;
    r->before = count;
    r->epoch_end += (over + 1) * CLICK_EPOCH_NS;
}

/* In 1/1024 a second. */
static inline uint64_t click_rate_scaled(const click_rate *r) { return r->average * CLICK_EPOCHS_A_SECOND; }

#endif /* CLICK_RATE_H */
