/* relay: a middlebox with a process for each client, between two devices.
 *
 *     relay IN_DEVICE OUT_DEVICE CLIENTS
 *
 * Clients are 10.0.0.0 and onward. The parent takes packets from IN_DEVICE and hands each to its client's process over a pair
 * of sockets; that exchanges the Ethernet addresses twice, as the guest beside it does, and sends it to OUT_DEVICE. What a
 * process cannot take at once is dropped. Writes one line when all are there, and ends them when it ends or its input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BURST = 32, BYTES = 2048, SOURCE_AT = 26, HEADERS = 34, BUFFER_BYTES = 16 << 20 };

static int open_device(const char *device, int protocol) {
    const int fd = socket(AF_PACKET, SOCK_RAW, 0), bytes = BUFFER_BYTES, around = 1;
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol), .sll_ifindex = (int)if_nametoindex(device)};
    if (fd < 0 || at.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        perror(device);
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &around, sizeof around);
    return fd;
}

static void exchange(unsigned char *frame) {
    unsigned char destination[6];
    memcpy(destination, frame, 6);
    memmove(frame, frame + 6, 6);
    memcpy(frame + 6, destination, 6);
    __asm__ volatile("" ::: "memory");
}

static void serve(int from, int out) {
    unsigned char frame[BYTES];
    for (;;) {
        const ssize_t got = read(from, frame, sizeof frame);
        if (got <= 0) _exit(0);
        exchange(frame);
        exchange(frame);
        send(out, frame, (size_t)got, MSG_DONTWAIT);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const int in = open_device(argv[1], ETH_P_ALL), out = open_device(argv[2], 0);
    const uint32_t clients = (uint32_t)atol(argv[3]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int *to = calloc(clients, sizeof *to);
    for (uint32_t i = 0; i < clients; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) return perror("socketpair"), 1;
        const pid_t child = fork();
        if (child < 0) return perror("fork"), 1;
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(in);
            close(pair[0]);
            for (uint32_t other = 0; other < i; other++) close(to[other]);
            serve(pair[1], out);
        }
        close(pair[1]);
        to[i] = pair[0];
    }
    puts("ready");
    fflush(stdout);
    static unsigned char frames[BURST][BYTES];
    struct iovec pieces[BURST];
    struct mmsghdr messages[BURST];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BURST; i++) {
        pieces[i] = (struct iovec){frames[i], BYTES};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    struct pollfd waiting[2] = {{in, POLLIN, 0}, {0, POLLIN, 0}};
    while (poll(waiting, 2, -1) > 0 && waiting[1].revents == 0) {
        const int count = recvmmsg(in, messages, BURST, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) {
            uint32_t address;
            if (messages[i].msg_len < HEADERS || frames[i][12] != 8) continue;
            memcpy(&address, frames[i] + SOURCE_AT, sizeof address);
            const uint32_t client = ntohl(address) - 0x0a000000;
            if (client < clients) send(to[client], frames[i], messages[i].msg_len, MSG_DONTWAIT);
        }
    }
    return 0;
}
