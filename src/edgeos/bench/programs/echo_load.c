/* echo_load: keeps one message in flight on each of many connections to an echo service.
 *
 *     echo_load PORT CONNECTIONS BYTES WARM_UP_MS MILLISECONDS
 *
 * A connection is open when its first message is back, and only OPENING_MAX are being opened at a time, so that nobody's
 * backlog overflows; then all send. Each message is checked byte by byte when it is back. Prints: messages,
 * elapsed ns, median and 99th percentile of the time a message took (ns), and the share of one core that this program used.
 * Status 1, saying why, when the service refuses, ends or spoils a connection, or none answers for ten seconds.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "echo_messages.h"

enum { EVENTS = 512, OPENING_MAX = 128 };

struct connection {
    int fd;
    uint32_t received;
    uint32_t number; /* of the message in flight, which every byte of it depends on */
    uint64_t sent_ns;
};

static uint32_t bytes;
static int answered; /* connections whose first message is back */
static bool sending; /* each message that is back is followed by the next */

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void send_next(struct connection *c, uint64_t now) {
    c->number++;
    c->received = 0;
    c->sent_ns = now;
    if (send(c->fd, message_bytes(c->number, (uint32_t)c->fd), bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
        fail_with_errno("the service does not take a message");
}

/* Reads what has come; true when the message is whole. */
static int read_back(struct connection *c) {
    uint8_t message[BYTES_MAX];
    const ssize_t got = recv(c->fd, message, bytes - c->received, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) fail_with_errno("the service has ended a connection");
    if (memcmp(message, message_bytes(c->number, (uint32_t)c->fd) + c->received, (size_t)got) != 0)
        fail("the service has spoilt a message");
    c->received += (uint32_t)got;
    return c->received == bytes;
}

static void drive(int queue, uint64_t until_ns, int measured) {
    struct epoll_event events[EVENTS];
    while (now_ns() < until_ns) {
        const int ready = epoll_wait(queue, events, EVENTS, PATIENCE_MS);
        if (ready == 0) fail("no connection has answered for ten seconds");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!read_back(c)) continue;
            const uint64_t now = now_ns();
            answered += c->number == 1;
            if (measured) take_sample(now - c->sent_ns);
            if (sending) send_next(c, now);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    const int count = atoi(argv[2]);
    bytes = (uint32_t)atoi(argv[3]);
    if (count < 1 || bytes < 1 || bytes > BYTES_MAX) return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct connection *all = calloc((size_t)count, sizeof *all);
    if (all == NULL) fail("there is no memory for the connections");
    make_samples();
    const int queue = epoll_create1(0);
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)atoi(argv[1])),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < count; i++) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        if (fd < 0) fail_with_errno("cannot make a socket");
        if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) fail_with_errno("cannot connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        all[i].fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event) != 0) fail_with_errno("epoll_ctl");
        send_next(&all[i], now_ns());
        while (answered + OPENING_MAX <= i) drive(queue, now_ns() + 1000u, 0);
    }
    while (answered < count) drive(queue, now_ns() + 1000u, 0);
    sending = true;
    for (int i = 0; i < count; i++) send_next(&all[i], now_ns());
    drive(queue, now_ns() + (uint64_t)atoll(argv[4]) * 1000000u, 0);
    const uint64_t begin_ns = now_ns();
    const double cpu_before = cpu_s();
    drive(queue, begin_ns + (uint64_t)atoll(argv[5]) * 1000000u, 1);
    while (messages == 0) drive(queue, now_ns() + 1000000u, 1); /* on a machine that is busy elsewhere */
    const uint64_t elapsed_ns = now_ns() - begin_ns;
    const double busy = (cpu_s() - cpu_before) / (1e-9 * (double)elapsed_ns);
    print_samples(elapsed_ns, busy);
    return 0;
}
