/* copy: the limit that moving bytes between buffers has, a plain memcpy of each message into the next buffer.
 *
 *     copy COPIES SIZE STRIDE MILLISECONDS HOW
 *
 * COPIES + 1 buffers of 64 slots, STRIDE bytes apart. Bursts of 64 messages of SIZE bytes go from the first buffer through
 * all others, slot by slot, as messages go through a chain. HOW is call (memcpy of the C library, the length known when it
 * runs) or inline (64 bytes, known to the compiler). Prints messages and nanoseconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLOTS = 64, BURST = 64, ROUNDS = 1000 };

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

__attribute__((noinline)) static void pass(char **buffers, int copies, size_t size, size_t stride) {
    for (int b = 0; b < copies; b++)
        for (size_t slot = 0; slot < BURST; slot++) memcpy(buffers[b + 1] + slot * stride, buffers[b] + slot * stride, size);
}

__attribute__((noinline)) static void pass_64(char **buffers, int copies, size_t stride) {
    for (int b = 0; b < copies; b++)
        for (size_t slot = 0; slot < BURST; slot++) memcpy(buffers[b + 1] + slot * stride, buffers[b] + slot * stride, 64);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    const int copies = atoi(argv[1]);
    const size_t size = strtoul(argv[2], NULL, 10), stride = strtoul(argv[3], NULL, 10);
    const long long limit_ns = atoll(argv[4]) * 1000000;
    const int fixed = strcmp(argv[5], "inline") == 0;
    if (copies < 1 || copies > 64 || size > stride || (fixed && size != 64)) return 2;
    char *buffers[65];
    for (int b = 0; b <= copies; b++) {
        buffers[b] = aligned_alloc(64, (SLOTS * stride + 63) / 64 * 64);
        if (!buffers[b]) return 1;
        memset(buffers[b], b, SLOTS * stride);
    }
    long long messages = 0, elapsed = 0;
    const long long begin = now_ns();
    while (elapsed < limit_ns) {
        for (int round = 0; round < ROUNDS; round++) {
            if (fixed)
                pass_64(buffers, copies, stride);
            else
                pass(buffers, copies, size, stride);
            __asm__ volatile("" ::: "memory");
        }
        messages += (long long)ROUNDS * BURST;
        elapsed = now_ns() - begin;
    }
    printf("%lld %lld\n", messages, elapsed);
    return 0;
}
