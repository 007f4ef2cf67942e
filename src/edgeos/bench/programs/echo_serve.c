/* echo_serve: sends back what it reads, with a process or a thread for each connection, or all in one bare loop.
 *
 *     echo_serve process | thread | loop ADDRESS
 *
 * Listens on a port of ADDRESS that the system chooses, prints its number, and serves until its standard input ends.
 * Status 1, saying why, when a connection could not be given what it needs.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, BUFFER = 16384, STACK = 64 << 10 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void serve(int fd) {
    char buffer[BUFFER];
    for (;;) {
        const ssize_t got = read(fd, buffer, sizeof buffer);
        if (got <= 0) break;
        for (ssize_t sent = 0; sent < got;) {
            const ssize_t n = write(fd, buffer + sent, (size_t)(got - sent));
            if (n <= 0) break;
            sent += n;
        }
    }
    close(fd);
}

static void *serve_in_thread(void *fd) {
    serve((int)(intptr_t)fd);
    return NULL;
}

/* As few system calls as there can be: one to read a message, one to send it, and a share of one that waits for many. */
static int serve_in_loop(int listener) {
    static char buffer[BUFFER];
    const int queue = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    if (epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event) != 0) fail("epoll_ctl");
    event.data.fd = 0;
    if (epoll_ctl(queue, EPOLL_CTL_ADD, 0, &event) != 0) fail("epoll_ctl");
    for (;;) {
        const int count = epoll_wait(queue, ready, sizeof ready / sizeof *ready, -1);
        for (int i = 0; i < count; i++) {
            const int fd = ready[i].data.fd;
            if (fd == 0) return 0; /* whoever started this has ended it, or has gone */
            if (fd == listener) {
                const int client = accept(listener, NULL, NULL);
                if (client < 0) fail("accept");
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = client;
                if (epoll_ctl(queue, EPOLL_CTL_ADD, client, &event) != 0) fail("epoll_ctl");
                continue;
            }
            const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
            if (got <= 0) close(fd);
            else if (send(fd, buffer, (size_t)got, MSG_NOSIGNAL) != got) close(fd);
        }
    }
}

static void start_process(int listener, int fd) {
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(listener);
        serve(fd);
        _exit(0);
    }
    close(fd);
}

static void start_thread(int fd) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, serve_in_thread, (void *)(intptr_t)fd) != 0) fail("pthread_create");
    pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (argc != 3 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) return 2;
    const int by_process = strcmp(argv[1], "process") == 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
    if (listen(listener, BACKLOG) != 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    if (strcmp(argv[1], "loop") == 0) return serve_in_loop(listener);
    struct pollfd waits[2] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        poll(waits, 2, -1);
        if (waits[1].revents) return 0; /* whoever started this has ended it, or has gone */
        const int fd = accept(listener, NULL, NULL);
        if (fd < 0) fail("accept");
        const int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        by_process ? start_process(listener, fd) : start_thread(fd);
    }
}
