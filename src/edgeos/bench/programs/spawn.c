/* spawn: times processes from a parent that is as small as a process can be.
 *
 *     spawn METHOD ROUNDS PROGRAM [ARGUMENT...]
 *
 * METHOD is fork (fork, execv) or posix_spawn. Prints two numbers a round, nanoseconds: until fork or posix_spawn returned
 * to the parent, and until the child had run, ended and been waited for. Ends with status 1, saying why, when a child
 * does not end with 0. One round before the first is not counted.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static pid_t start(int by_fork, char **command) {
    pid_t child;
    if (!by_fork) return posix_spawn(&child, command[0], NULL, NULL, command, environ) == 0 ? child : -1;
    child = fork();
    if (child == 0) {
        execv(command[0], command);
        _exit(127);
    }
    return child;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const int by_fork = strcmp(argv[1], "fork") == 0;
    const int rounds = atoi(argv[2]);
    for (int i = -1; i < rounds; i++) {
        const long long begin = now_ns();
        const pid_t child = start(by_fork, argv + 3);
        const long long started = now_ns();
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "%s ended with status %d\n", argv[3], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
            return 1;
        }
        const long long ended = now_ns();
        if (i >= 0) printf("%lld %lld\n", started - begin, ended - begin);
    }
    return 0;
}
