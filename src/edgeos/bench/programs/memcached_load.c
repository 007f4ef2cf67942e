/* memcached_load: many clients of memcached, each with an address and a connection of its own.
 *
 *     memcached_load ADDRESS STEP PORT CLIENTS
 *
 * Client i connects from 127.64.0.1 + i to ADDRESS + STEP * i, and keeps ten keys of its own. Prints "ready", then reads
 * lines from standard input, each a run:
 *
 *     VALUE_BYTES SET_PERCENT RATE WARM_UP_MS MILLISECONDS
 *
 * Before a run with values of another size, every client stores its ten keys; with MILLISECONDS 0 that is all. RATE 0 is a
 * closed loop: each client has one request in flight. Otherwise RATE requests a second are meant to be sent, at random times
 * (a Poisson process) by random clients, whether or not answers come; a client whose answer is outstanding sends when it
 * has come. A request's time runs from the moment at which it was meant to be sent. One that is not answered when the run
 * ends counts with the time that it has waited. Every answer is compared with what it must be.
 *
 * Prints "stored", or for each run: answered requests, unanswered ones, elapsed ns, the share of one core that this program
 * used, and 102 times in ns: the percentiles 0.5, 1.5, …, 98.5, then 99, 99.9 and the longest of all. Ends with its input.
 * Status 1, saying why, when a service refuses, ends or answers wrongly, or none answers for ten seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    KEYS = 10,
    VALUE_MAX = 1 << 20,
    EVENTS = 256,
    SAMPLES_MAX = 8 << 20,
    PATIENCE_MS = 10000,
    FIRST_CLIENT = 0x7f400001, /* 127.64.0.1 */
    ROOM = VALUE_MAX + 128,
};

struct request {
    uint64_t meant_ns;
    struct request *next;
};

struct client {
    int fd;
    uint32_t number;
    uint32_t received, expected; /* bytes of the answer in flight; expected 0: none is */
    uint8_t is_set, key;
    uint64_t meant_ns;               /* of the request in flight */
    struct request *first, **last;   /* that wait for it */
};

static struct client *clients;
static uint32_t client_count, value_bytes, set_percent;
static int queue;
static uint64_t *samples, sample_count, answered;
static uint64_t measure_from_ns;
static uint8_t *value, *line, *expected, *input;
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static uint64_t random_bits(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* ---- Requests and answers ---- */

static uint32_t write_key(uint8_t *to, const struct client *c, uint32_t key) {
    return (uint32_t)sprintf((char *)to, "c%05u:%u", c->number, key);
}

/* The value of each key of each client starts in another way. */
static void mark_value(uint8_t *at, const struct client *c, uint32_t key) {
    const uint32_t mark = c->number * KEYS + key;
    for (uint32_t i = 0; i < value_bytes && i < 8; i++) at[i] = (uint8_t)('a' + (mark >> 4 * i) % 16);
}

static uint32_t expected_answer(const struct client *c) {
    if (c->is_set) {
        memcpy(expected, "STORED\r\n", 8);
        return 8;
    }
    uint8_t *at = expected;
    memcpy(at, "VALUE ", 6);
    at += 6;
    at += write_key(at, c, c->key);
    at += sprintf((char *)at, " 0 %u\r\n", value_bytes);
    memcpy(at, value, value_bytes);
    mark_value(at, c, c->key);
    at += value_bytes;
    memcpy(at, "\r\nEND\r\n", 7);
    return (uint32_t)(at + 7 - expected);
}

static void send_request(struct client *c, uint64_t meant_ns, int is_set, uint32_t key) {
    c->is_set = (uint8_t)is_set;
    c->key = (uint8_t)key;
    c->meant_ns = meant_ns;
    c->received = 0;
    c->expected = is_set ? 8 : 6 + 8 + 3 + value_bytes + 2 + 7 + (uint32_t)snprintf(0, 0, "%u", value_bytes);
    uint8_t *at = line;
    memcpy(at, is_set ? "set " : "get ", 4);
    at += 4;
    at += write_key(at, c, key);
    if (is_set) {
        at += sprintf((char *)at, " 0 0 %u\r\n", value_bytes);
        memcpy(at, value, value_bytes);
        mark_value(at, c, key);
        at += value_bytes;
    }
    memcpy(at, "\r\n", 2);
    const size_t len = (size_t)(at + 2 - line);
    for (size_t done = 0; done < len;) {
        const ssize_t sent = send(c->fd, line + done, len - done, MSG_NOSIGNAL);
        if (sent <= 0) fail("a service does not take a request");
        done += (size_t)sent;
    }
}

static void send_any(struct client *c, uint64_t meant_ns) {
    const uint64_t bits = random_bits();
    send_request(c, meant_ns, (bits >> 32) % 100 < set_percent, (uint32_t)(bits & 0xffff) % KEYS);
}

/* Reads what has come; true when the answer is whole. */
static int read_answer(struct client *c) {
    const ssize_t got = recv(c->fd, input, c->expected - c->received + 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) fail("a service has ended a connection");
    const uint32_t whole = expected_answer(c);
    if (c->received + (uint32_t)got > whole || memcmp(input, expected + c->received, (size_t)got) != 0) {
        fprintf(stderr, "a service has answered wrongly: %.60s\n", input);
        exit(1);
    }
    c->received += (uint32_t)got;
    if (c->received < whole) return 0;
    c->expected = 0;
    return 1;
}

static void record(uint64_t took_ns) {
    if (sample_count < SAMPLES_MAX) samples[sample_count++] = took_ns;
}

static void sample(uint64_t meant_ns, uint64_t end_ns) {
    if (meant_ns >= measure_from_ns) record(end_ns > meant_ns ? end_ns - meant_ns : 0);
}

/* ---- Closed loop ---- */

static int wait_events(struct epoll_event *events, int patience_ms) {
    const int ready = epoll_wait(queue, events, EVENTS, patience_ms);
    if (ready == 0 && patience_ms == PATIENCE_MS) {
        fprintf(stderr, "no client was answered for ten seconds\n");
        exit(1);
    }
    return ready < 0 ? 0 : ready;
}

static void closed_loop(uint64_t until_ns) {
    struct epoll_event events[EVENTS];
    for (uint32_t i = 0; i < client_count; i++) send_any(&clients[i], now_ns());
    for (uint64_t now = now_ns(); now < until_ns; now = now_ns()) {
        const int ready = wait_events(events, PATIENCE_MS);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (!read_answer(c)) continue;
            const uint64_t then = now_ns();
            if (then >= measure_from_ns) {
                record(then - c->meant_ns);
                answered++;
            }
            send_any(c, then);
        }
    }
}

/* ---- Offered load ---- */

static void queue_request(struct client *c, struct request *r) {
    r->next = NULL;
    *c->last = r;
    c->last = &r->next;
}

static void send_next(struct client *c) {
    struct request *r = c->first;
    if (r == NULL) return;
    c->first = r->next;
    if (c->first == NULL) c->last = &c->first;
    send_any(c, r->meant_ns);
}

static uint64_t gap_ns(double rate) {
    const double uniform = ((double)(random_bits() >> 11) + 1.0) / 9007199254740993.0;
    return (uint64_t)(-log(uniform) * 1e9 / rate);
}

static void offered_load(double rate, uint64_t begin_ns, uint64_t until_ns) {
    const size_t room = (size_t)(rate * 1.2 * 1e-9 * (double)(until_ns - begin_ns)) + 10000;
    struct request *requests = malloc(room * sizeof *requests);
    if (requests == NULL) fail("no memory");
    size_t used = 0;
    struct epoll_event events[EVENTS];
    uint64_t due = begin_ns + gap_ns(rate), now;
    while ((now = now_ns()) < until_ns) {
        for (; due <= now && used < room; due += gap_ns(rate)) {
            struct client *c = &clients[random_bits() % client_count];
            requests[used].meant_ns = due;
            queue_request(c, &requests[used++]);
            if (c->expected == 0) send_next(c);
        }
        const int ready = wait_events(events, 0);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (c->expected == 0 || !read_answer(c)) continue;
            sample(c->meant_ns, now_ns());
            answered += c->meant_ns >= measure_from_ns;
            send_next(c);
        }
    }
    for (uint32_t i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        for (struct request *r = c->first; r != NULL; r = r->next) sample(r->meant_ns, until_ns);
        c->first = NULL;
        c->last = &c->first;
    }
    free(requests);
}

/* ---- Runs ---- */

/* Waits for all that is in flight; each is a sample when `until_ns`, the end of the run, is given. */
static void settle(uint64_t until_ns) {
    struct epoll_event events[EVENTS];
    uint32_t left = 0;
    for (uint32_t i = 0; i < client_count; i++) {
        if (clients[i].expected == 0) continue;
        if (until_ns) sample(clients[i].meant_ns, until_ns);
        left++;
    }
    while (left > 0) {
        const int ready = wait_events(events, PATIENCE_MS);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (c->expected != 0 && read_answer(c)) left--;
        }
    }
}

static void store_all(void) {
    measure_from_ns = UINT64_MAX;
    for (uint32_t key = 0; key < KEYS; key++) {
        for (uint32_t i = 0; i < client_count; i++) send_request(&clients[i], 0, 1, key);
        settle(0);
    }
    for (uint32_t i = 0; i < client_count; i++) send_request(&clients[i], 0, 0, 0);
    settle(0);
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t time_at(double share) {
    const uint64_t at = (uint64_t)(share * (double)sample_count);
    return samples[at < sample_count ? at : sample_count - 1];
}

static void run(double rate, uint64_t warm_up_ms, uint64_t milliseconds) {
    const uint64_t begin_ns = now_ns(), until_ns = begin_ns + (warm_up_ms + milliseconds) * 1000000u;
    const double cpu_before = cpu_s();
    measure_from_ns = begin_ns + warm_up_ms * 1000000u;
    sample_count = answered = 0;
    rate > 0 ? offered_load(rate, begin_ns, until_ns) : closed_loop(until_ns);
    const double busy = (cpu_s() - cpu_before) / (1e-9 * (double)(now_ns() - begin_ns));
    const int starved = sample_count == 0; /* nothing was answered in time, so what waits is all there is to tell */
    if (starved) measure_from_ns = 0;
    settle(rate > 0 || starved ? until_ns : 0);
    if (sample_count == 0) record(until_ns - begin_ns);
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("%llu %llu %llu %.3f", (unsigned long long)answered, (unsigned long long)(sample_count - answered),
           (unsigned long long)milliseconds * 1000000u, busy);
    for (int i = 0; i < 99; i++) printf(" %llu", (unsigned long long)time_at(0.005 + 0.01 * i));
    printf(" %llu %llu %llu\n", (unsigned long long)time_at(0.99), (unsigned long long)time_at(0.999),
           (unsigned long long)samples[sample_count - 1]);
    fflush(stdout);
}

static void connect_all(in_addr_t address, uint32_t step, uint16_t port) {
    for (uint32_t i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        const struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(FIRST_CLIENT + i)};
        const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port),
                                       .sin_addr.s_addr = htonl(ntohl(address) + step * i)};
        const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        if (fd < 0) fail("cannot make a socket");
        if (bind(fd, (const struct sockaddr *)&from, sizeof from) != 0) fail("cannot take a client's address");
        if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) fail("cannot connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        *c = (struct client){.fd = fd, .number = i, .last = &c->first};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    client_count = (uint32_t)atoi(argv[4]);
    if (client_count < 1 || client_count > 99999) return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    clients = calloc(client_count, sizeof *clients);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    value = malloc(ROOM), line = malloc(ROOM), expected = malloc(ROOM), input = malloc(ROOM);
    if (!clients || !samples || !value || !line || !expected || !input) fail("no memory");
    memset(value, 'v', ROOM);
    queue = epoll_create1(0);
    connect_all(inet_addr(argv[1]), (uint32_t)atoi(argv[2]), (uint16_t)atoi(argv[3]));
    printf("ready\n");
    fflush(stdout);
    uint32_t bytes;
    double rate;
    unsigned long long warm_up_ms, milliseconds;
    while (scanf("%u %u %lf %llu %llu", &bytes, &set_percent, &rate, &warm_up_ms, &milliseconds) == 5) {
        if (bytes < 1 || bytes > VALUE_MAX) return 2;
        if (bytes != value_bytes) {
            value_bytes = bytes;
            store_all();
        }
        if (milliseconds) run(rate, warm_up_ms, milliseconds);
        else printf("stored\n");
        fflush(stdout);
    }
    return 0;
}
