/* send: Ethernet frames into a device as fast as it takes them, for a time.
 *
 *     send DEVICE SIZE MILLISECONDS QDISC
 *
 * SIZE is that of a frame in bytes, with its header. QDISC is 1 to go through the device's queueing discipline, 0 to go
 * around it. Prints frames that were accepted and nanoseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum { BURST = 64 };

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    const size_t size = strtoul(argv[2], NULL, 10);
    const long long limit_ns = atoll(argv[3]) * 1000000;
    const int around = atoi(argv[4]) == 0;
    static unsigned char frame[1514] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}; /* a local experimental type */
    if (size < 14 || size > sizeof frame) return 2;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    const int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &around, sizeof around) != 0) {
        perror(argv[1]);
        return 1;
    }
    struct iovec bytes = {frame, size};
    struct mmsghdr messages[BURST];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BURST; i++) {
        messages[i].msg_hdr.msg_iov = &bytes;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    long long accepted = 0, elapsed = 0;
    const long long begin = now_ns();
    while (elapsed < limit_ns) {
        const int sent = sendmmsg(fd, messages, BURST, 0);
        if (sent > 0) accepted += sent;
        if (sent < 0 && errno != ENOBUFS && errno != EAGAIN) {
            perror("sendmmsg");
            return 1;
        }
        elapsed = now_ns() - begin;
    }
    printf("%lld %lld\n", accepted, elapsed);
    return 0;
}
