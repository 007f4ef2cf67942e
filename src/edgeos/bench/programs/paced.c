/* paced: UDP packets of many clients into one device at a steady rate, and how long each took to another device.
 *
 *     paced SEND_NAMESPACE SEND_DEVICE RECEIVE_NAMESPACE RECEIVE_DEVICE CLIENTS RATE WARM_UP_MS MILLISECONDS
 *
 * Namespaces are numbers of open files. Clients are 10.0.0.0 and onward, in an order mixed with a fixed seed; frames have 64
 * bytes and carry the time at which they were handed to the kernel. RATE is packets a second, 0 for as many as the device
 * takes. Packets of the first WARM_UP_MS are not counted. One thread sends and receives without sleeping. Prints packets
 * sent, received, nanoseconds of sending, then 50th, 99th and 99.9th percentile and maximum of the time under way, and how
 * many of the packets sent were more than 100 us late.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum {
    BURST = 32,
    FRAME = 64,
    IP_AT = 14,
    SOURCE_AT = 26,
    PAYLOAD_AT = 42,
    RECEIVED_BYTES = 2048,
    TIMES_MAX = 1 << 24,
    LATE_NS = 100000,
    BUFFER_BYTES = 16 << 20
};
static const long long DRAIN_NS = 300000000;
static const uint64_t MARK = 0x6564676570616365;

struct payload {
    uint64_t mark, sent_ns;
};

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_device(int space, const char *device, int protocol) {
    if (setns(space, CLONE_NEWNET) != 0) return perror("setns"), -1;
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol), .sll_ifindex = (int)if_nametoindex(device)};
    const int bytes = BUFFER_BYTES, around = 1;
    if (fd < 0 || at.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0) return perror(device), -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &around, sizeof around);
    return fd;
}

static uint16_t checksum(const unsigned char *header) {
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2) sum += (uint32_t)(header[i] << 8 | header[i + 1]);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void make_frame(unsigned char *frame, uint32_t client) {
    static const unsigned char start[PAYLOAD_AT] = {
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,                            /* Ethernet */
        0x45, 0, 0, FRAME - IP_AT, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, /* IPv4 */
        0x9c, 0x40, 0, 53, 0, FRAME - IP_AT - 20, 0, 0};                     /* UDP without a checksum */
    memcpy(frame, start, sizeof start);
    const uint32_t address = htonl(0x0a000000 + client);
    memcpy(frame + SOURCE_AT, &address, sizeof address);
    const uint16_t sum = checksum(frame + IP_AT);
    memcpy(frame + IP_AT + 10, &sum, sizeof sum);
}

static int compare(const void *one, const void *other) {
    const uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static uint32_t *times;
static size_t timed;

static void receive(int fd, long long counted_from) {
    static unsigned char bytes[BURST][RECEIVED_BYTES];
    static struct iovec pieces[BURST];
    static struct mmsghdr messages[BURST];
    for (int i = 0; i < BURST; i++) {
        pieces[i] = (struct iovec){bytes[i], RECEIVED_BYTES};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int count = recvmmsg(fd, messages, BURST, MSG_DONTWAIT, NULL);
    const long long now = count > 0 ? now_ns() : 0;
    for (int i = 0; i < count; i++) {
        struct payload payload;
        if (messages[i].msg_len < PAYLOAD_AT + sizeof payload) continue;
        memcpy(&payload, bytes[i] + PAYLOAD_AT, sizeof payload);
        if (payload.mark != MARK || (long long)payload.sent_ns < counted_from || timed == TIMES_MAX) continue;
        const uint64_t under_way = (uint64_t)now - payload.sent_ns;
        times[timed++] = under_way > UINT32_MAX ? UINT32_MAX : (uint32_t)under_way;
    }
}

int main(int argc, char **argv) {
    if (argc != 9) return 2;
    const int out = open_device(atoi(argv[1]), argv[2], 0), in = open_device(atoi(argv[3]), argv[4], ETH_P_ALL);
    if (out < 0 || in < 0) return 1;
    const uint32_t clients = (uint32_t)atol(argv[5]);
    const double rate = atof(argv[6]);
    unsigned char (*frames)[FRAME] = malloc((size_t)clients * FRAME);
    times = malloc(sizeof *times * TIMES_MAX);
    if (clients == 0 || frames == NULL || times == NULL) return 2;
    uint64_t random = 88172645463325252u;
    for (uint32_t i = 0; i < clients; i++) {
        make_frame(frames[i], i);
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        const uint32_t other = (uint32_t)(random % (i + 1));
        unsigned char kept[FRAME];
        memcpy(kept, frames[other], FRAME);
        memcpy(frames[other], frames[i], FRAME);
        memcpy(frames[i], kept, FRAME);
    }
    struct iovec pieces[BURST];
    struct mmsghdr messages[BURST];
    memset(messages, 0, sizeof messages);
    const long long begun = now_ns(), counted_from = begun + atoll(argv[7]) * 1000000;
    const long long end = counted_from + atoll(argv[8]) * 1000000;
    uint64_t handed = 0, counted = 0, late = 0;
    long long now;
    while ((now = now_ns()) < end) {
        uint64_t due = rate == 0 ? handed + BURST : (uint64_t)((double)(now - begun) * rate / 1e9);
        int burst = 0;
        for (; burst < BURST && handed + (uint64_t)burst < due; burst++) {
            unsigned char *frame = frames[(handed + (uint64_t)burst) % clients];
            const struct payload payload = {MARK, (uint64_t)now};
            memcpy(frame + PAYLOAD_AT, &payload, sizeof payload);
            pieces[burst] = (struct iovec){frame, FRAME};
            messages[burst].msg_hdr.msg_iov = &pieces[burst];
            messages[burst].msg_hdr.msg_iovlen = 1;
        }
        if (burst > 0) {
            const int sent = sendmmsg(out, messages, (unsigned)burst, MSG_DONTWAIT);
            if (sent < 0 && errno != ENOBUFS && errno != EAGAIN) return perror("sendmmsg"), 1;
            if (sent > 0) {
                const long long due_ns = rate == 0 ? now : begun + (long long)((double)(handed + 1) * 1e9 / rate);
                handed += (uint64_t)sent;
                if (now >= counted_from) {
                    counted += (uint64_t)sent;
                    if (now - due_ns > LATE_NS) late += (uint64_t)sent;
                }
            }
        }
        receive(in, counted_from);
    }
    const long long sending = now - counted_from;
    while (timed < counted && now_ns() < end + DRAIN_NS) receive(in, counted_from);
    if (timed == 0) return fprintf(stderr, "nothing arrived of %llu packets\n", (unsigned long long)counted), 1;
    qsort(times, timed, sizeof *times, compare);
    printf("%llu %zu %lld %u %u %u %u %llu\n", (unsigned long long)counted, timed, sending, times[timed / 2],
           times[timed - 1 - timed / 100], times[timed - 1 - timed / 1000], times[timed - 1], (unsigned long long)late);
    return 0;
}
