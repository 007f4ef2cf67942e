/* round_trip: how long a UDP echo takes between two network namespaces, one at a time.
 *
 *     round_trip CLIENT_NAMESPACE SERVER_NAMESPACE SERVER_ADDRESS MILLISECONDS PAUSE_US
 *
 * Namespaces are numbers of open files. Frames have 64 bytes. One thread is client and server and never sleeps, so that no
 * scheduler is between the two. After each answer it waits PAUSE_US. The time begins with the first answer, for which it waits
 * up to 5 s; the first fifth of it is not counted. Prints round trips, their 50th and 99th percentile and maximum in nanoseconds, and how many were not answered within 100 ms.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { PORT = 7007, PAYLOAD = 64 - 42, TIMES_MAX = 1 << 22 };
static const long long PATIENCE_NS = 100000000, FIRST_NS = 5000000000;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_socket(int space) {
    if (setns(space, CLONE_NEWNET) != 0) return perror("setns"), -1;
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0) perror("socket");
    return fd;
}

static int compare(const void *one, const void *other) {
    const uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static void serve(int server) {
    char bytes[PAYLOAD];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    const ssize_t got = recvfrom(server, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
    if (got > 0) sendto(server, bytes, (size_t)got, 0, (struct sockaddr *)&from, length);
}

/* Nanoseconds of one round trip, or -1 when it took too long. */
static long long ask(int client, int server) {
    static uint64_t number;
    char bytes[PAYLOAD] = {0};
    number++;
    memcpy(bytes, &number, sizeof number);
    const long long sent = now_ns();
    if (send(client, bytes, sizeof bytes, 0) < 0) return -1;
    for (;;) {
        uint64_t answer = 0;
        serve(server);
        if (recv(client, bytes, sizeof bytes, 0) == sizeof bytes) memcpy(&answer, bytes, sizeof answer);
        const long long under_way = now_ns() - sent;
        if (answer == number) return under_way;
        if (under_way > PATIENCE_NS) return -1;
    }
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    const int client = open_socket(atoi(argv[1])), server = open_socket(atoi(argv[2]));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (client < 0 || server < 0 || inet_pton(AF_INET, argv[3], &to.sin_addr) != 1) return 2;
    if (bind(server, (struct sockaddr *)&to, sizeof to) != 0) return perror("bind"), 1;
    if (connect(client, (struct sockaddr *)&to, sizeof to) != 0) return perror("connect"), 1;
    const long long length_ns = atoll(argv[4]) * 1000000, pause_ns = atoll(argv[5]) * 1000;
    uint32_t *times = malloc(sizeof *times * TIMES_MAX);
    if (times == NULL) return 2;
    size_t count = 0, unanswered = 0;
    const long long first = now_ns();
    while (ask(client, server) < 0)
        if (now_ns() - first > FIRST_NS) return fprintf(stderr, "nothing was answered\n"), 1;
    const long long begun = now_ns();
    for (long long now = begun; now - begun < length_ns && count < TIMES_MAX; now = now_ns()) {
        const long long time = ask(client, server);
        if (now - begun > length_ns / 5) {
            if (time < 0)
                unanswered++;
            else
                times[count++] = (uint32_t)time;
        }
        const long long answered = now_ns();
        while (pause_ns > 0 && now_ns() - answered < pause_ns) {
        }
    }
    if (count == 0) return fprintf(stderr, "no more answers after the first\n"), 1;
    qsort(times, count, sizeof *times, compare);
    printf("%zu %u %u %u %zu\n", count, times[count / 2], times[count - 1 - count / 100], times[count - 1], unanswered);
    return 0;
}
