/* echo_processes: a process for each client, which sends back what it gets over a pair of sockets.
 *
 *     echo_processes CLIENTS ROUNDS
 *
 * Starts CLIENTS children, lets each answer one message of 64 bytes in each of ROUNDS rounds, checks the answers, writes one
 * line, and ends them when its input ends. Needs two files for each client while it starts, then one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <signal.h>

enum { BYTES = 64 };

static void serve(int fd) {
    char bytes[BYTES];
    for (;;) {
        const ssize_t got = read(fd, bytes, sizeof bytes);
        if (got <= 0 || write(fd, bytes, (size_t)got) != got) _exit(0);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const int clients = atoi(argv[1]), rounds = atoi(argv[2]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int *fds = calloc((size_t)clients, sizeof *fds);
    for (int i = 0; i < clients; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) return perror("socketpair"), 1;
        const pid_t child = fork();
        if (child < 0) return perror("fork"), 1;
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (int other = 0; other < i; other++) close(fds[other]);
            close(pair[0]);
            serve(pair[1]);
        }
        close(pair[1]);
        fds[i] = pair[0];
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < clients; i++) {
            char sent[BYTES], got[BYTES];
            memset(sent, i + round, sizeof sent);
            if (write(fds[i], sent, sizeof sent) != sizeof sent || read(fds[i], got, sizeof got) != sizeof got ||
                memcmp(sent, got, sizeof sent) != 0)
                return fprintf(stderr, "client %d was not answered\n", i), 1;
        }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
