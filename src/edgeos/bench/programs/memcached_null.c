/* memcached_null: answers clients of memcached_load without a cache, to show how much that program can do.
 *
 *     memcached_null
 *
 * Takes connections on a port of 127.0.0.1 that it prints. It keeps the bytes of the last `set` of each connection and key
 * digit, since answers are checked, and does nothing else: no parsing beyond the first letter and the key's digit, no hash, no
 * memory limit. One thread with epoll; ends with its standard input.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, KEYS = 10, KEY = 8, INPUT = 65536 };

struct client {
    int fd;
    char *answers[KEYS]; /* to `get` */
    size_t lens[KEYS];
    char input[INPUT];
    size_t held;
};

static void store(struct client *c, int key, const char *line, const char *value, size_t len) {
    char *answer = c->answers[key] = realloc(c->answers[key], len + 64);
    if (answer == NULL) exit(1);
    const int head = sprintf(answer, "VALUE %.*s 0 %zu\r\n", KEY, line + 4, len);
    memcpy(answer + head, value, len);
    memcpy(answer + head + len, "\r\nEND\r\n", 7);
    c->lens[key] = (size_t)head + len + 7;
}

/* Each client sends one request at a time, as `set c00001:5 0 0 100` or `get c00001:5`. */
static void serve(struct client *c) {
    const ssize_t got = recv(c->fd, c->input + c->held, INPUT - c->held, 0);
    if (got <= 0) {
        close(c->fd);
        for (int i = 0; i < KEYS; i++) free(c->answers[i]);
        free(c);
        return;
    }
    c->held += (size_t)got;
    const char *end = memchr(c->input, '\n', c->held);
    if (end == NULL) return;
    const int key = c->input[4 + KEY - 1] - '0';
    if (key < 0 || key >= KEYS) exit(1);
    if (c->input[0] == 's') {
        const size_t len = strtoul(c->input + 4 + KEY + 5, NULL, 10);
        if (c->held < (size_t)(end + 1 - c->input) + len + 2) return;
        store(c, key, c->input, end + 1, len);
        if (send(c->fd, "STORED\r\n", 8, MSG_NOSIGNAL) != 8) exit(1);
    } else if (send(c->fd, c->answers[key], c->lens[key], MSG_NOSIGNAL) != (ssize_t)c->lens[key]) {
        exit(1);
    }
    c->held = 0;
}

int main(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    const int queue = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    static char input_ended; /* its address is the mark of standard input */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ending = {.events = EPOLLIN, .data.ptr = &input_ended};
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) != 0 || epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event) != 0 ||
        epoll_ctl(queue, EPOLL_CTL_ADD, 0, &ending) != 0) {
        perror("memcached_null");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        const int ready = epoll_wait(queue, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &input_ended) return 0;
            if (events[i].data.ptr != NULL) {
                serve(events[i].data.ptr);
                continue;
            }
            struct client *c = calloc(1, sizeof *c);
            if (c == NULL || (c->fd = accept(listener, NULL, NULL)) < 0) return 1;
            setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.ptr = c;
            epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &event);
        }
    }
}
