/* stalls: how much of the time a program that does nothing but read the clock is kept from it.
 *
 *     stalls MILLISECONDS
 *
 * Prints nanoseconds of the run, nanoseconds in gaps of more than 2 us between two readings, and the longest gap: interrupts,
 * other programs and, on a virtual machine, its host. No figure of the same machine can be better than that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const long long GAP_NS = 2000;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    const long long length = atoll(argv[1]) * 1000000, begun = now_ns();
    long long last = begun, stalled = 0, longest = 0;
    while (last - begun < length) {
        const long long now = now_ns(), gap = now - last;
        if (gap > GAP_NS) stalled += gap;
        if (gap > longest) longest = gap;
        last = now;
    }
    printf("%lld %lld %lld\n", last - begun, stalled, longest);
    return 0;
}
