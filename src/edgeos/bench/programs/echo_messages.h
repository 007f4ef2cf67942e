/* What the load generators of echo services share: the clock, a message's bytes, and the times that messages took. */
#ifndef ECHO_MESSAGES_H
#define ECHO_MESSAGES_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BYTES_MAX = 4096, PATIENCE_MS = 10000 };

__attribute__((noreturn)) static void fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

__attribute__((noreturn)) static void fail_with_errno(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The bytes of message `number` of connection `connection`: they count upwards from a start of that message's own. */
static const uint8_t *message_bytes(uint32_t number, uint32_t connection) {
    static uint8_t counting[UINT8_MAX + 1 + BYTES_MAX];
    if (counting[1] == 0)
        for (uint32_t i = 0; i < sizeof counting; i++) counting[i] = (uint8_t)i;
    return counting + (uint8_t)(number * 31 + connection * 7);
}

/* Times that messages took, in nanoseconds. Beyond SAMPLES_MAX they are only counted. */
enum { SAMPLES_MAX = 4 << 20 };
static uint32_t *samples;
static uint64_t messages;

static void make_samples(void) {
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (samples == NULL) fail("there is no memory for the times of messages");
}

static void take_sample(uint64_t took_ns) {
    if (messages < SAMPLES_MAX) samples[messages] = took_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)took_ns;
    messages++;
}

static int by_value(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Prints messages, elapsed ns, median and 99th percentile of the time a message took (ns), and the busy share of a core. */
static void print_samples(uint64_t elapsed_ns, double busy) {
    if (messages == 0) fail("no message came back in time");
    const uint64_t kept = messages < SAMPLES_MAX ? messages : SAMPLES_MAX;
    qsort(samples, kept, sizeof *samples, by_value);
    printf("%llu %llu %u %u %.3f\n", (unsigned long long)messages, (unsigned long long)elapsed_ns, samples[kept / 2],
           samples[kept - 1 - kept / 100], busy);
}

#endif
