/* remote_load: clients on other machines, as a service sees them: one message in flight on each of many connections.
 *
 *     remote_load TUN ADDRESS PORT CONNECTIONS BYTES WARM_UP_MS MILLISECONDS
 *
 * TUN is the number of an open TUN device (IFF_NO_PI, IFF_VNET_HDR, offload of checksums), behind which this program is a
 * network of clients with an address each, from ADDRESS + 256 on, and speaks TCP for all of them. The system of the
 * service has no part in it: its TCP is that of the service alone. The program never sleeps.
 *
 * TCP (RFC 9293) as far as such a client needs it on a link that neither loses nor reorders: handshake with the options of
 * a common system, timestamps (RFC 7323), acknowledgements that ride on the next message, the service's window, a reset at
 * the end. It repeats nothing. A loss that would make it necessary is an error, as is what a correct peer never sends.
 *
 * A connection is open when its first message is back, and only OPENING_MAX are being opened at a time, so that nobody's
 * backlog overflows. When the time is over, every message in flight is awaited. Prints what echo_messages.h says; the share
 * of the core is that of the time in which a packet waited. Status 1, saying why, when the service refuses, ends or spoils
 * a connection, or sends nothing for ten seconds.
 */
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include "echo_messages.h"

enum {
    BURST = 64, /* packets that are taken before what they made due is sent: code stays in the caches meanwhile */
    OPENING_MAX = 128,
    PAUSE_US = 1000,
    CONNECTIONS_MAX = 60000,
    FIRST_CLIENT = 256, /* beyond the device's own address */
    SEGMENT_MAX = 1460, /* bytes, the timestamp among them */
    WINDOW = 65535,
    WINDOW_SCALE = 7,
    TIMESTAMP_WORD = 0x0101080a, /* no-operation twice, then a timestamp option of ten bytes */
    PACKET_MAX = 65536
};

enum state { CLOSED, CONNECTING, OPENING, OPEN };

struct client {
    uint32_t next;         /* sequence number of the next byte that it sends */
    uint32_t acknowledged; /* up to which the service has taken what it sent */
    uint32_t expected;     /* sequence number of the next byte that the service sends */
    uint32_t echo;         /* the service's last timestamp */
    uint32_t number;       /* of the message in flight, which every byte of it depends on */
    uint32_t received;     /* bytes of it that are back */
    uint32_t window;
    uint8_t scale; /* of the service's window */
    uint8_t state;
    uint64_t sent_ns;
};

/* A segment with no options but a timestamp, which is all that leaves after a SYN. */
struct __attribute__((packed)) segment {
    struct virtio_net_hdr offload;
    struct iphdr ip;
    struct tcphdr tcp;
    uint32_t timestamp[3]; /* TIMESTAMP_WORD, ours, the service's */
    uint8_t payload[BYTES_MAX];
};

struct __attribute__((packed)) opening_segment {
    struct virtio_net_hdr offload;
    struct iphdr ip;
    struct tcphdr tcp;
    uint8_t segment_size[4], selective[2], timestamp[10], nothing, scale[3];
};

static int device;
static uint32_t bytes, count;
static uint32_t service_address, first_address; /* host byte order */
static uint16_t service_port, client_port;
static struct client *clients;
static uint32_t begun, open_count, in_flight;
static bool sending, measured;
static uint32_t due[BURST], due_count; /* clients whose next message is to be sent */
static uint64_t now; /* when the packet that is dealt with was taken from the device */
static uint64_t heard_ns; /* when a client last got a segment */

/* ---- Sending ---- */

static uint16_t header_checksum(const struct iphdr *ip) {
    uint16_t words[sizeof *ip / 2];
    uint32_t sum = 0;
    memcpy(words, ip, sizeof words);
    for (uint32_t i = 0; i < sizeof words / sizeof *words; i++) sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~(sum + (sum >> 16));
}

static struct iphdr ip_header(uint32_t index, size_t length) {
    struct iphdr ip = {
        .version = 4,
        .ihl = sizeof ip / 4,
        .tot_len = htons((uint16_t)length),
        .frag_off = htons(IP_DF),
        .ttl = 64,
        .protocol = IPPROTO_TCP,
        .saddr = htonl(first_address + index),
        .daddr = htonl(service_address),
    };
    ip.check = header_checksum(&ip);
    return ip;
}

static struct tcphdr tcp_header(const struct client *c, size_t length) {
    return (struct tcphdr){
        .source = htons(client_port),
        .dest = htons(service_port),
        .seq = htonl(c->next),
        .ack_seq = htonl(c->expected),
        .doff = (length / 4) & 15,
        .window = htons(WINDOW),
    };
}

static uint32_t our_time(void) { return (uint32_t)(now / 1000000u); }

/* To the service's system a checksum that is still to be made is as good as one that a network card has verified. */
static const struct virtio_net_hdr unsummed = {
    .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
    .csum_start = sizeof(struct iphdr),
    .csum_offset = offsetof(struct tcphdr, check),
};

static void put(const void *packet, size_t length) {
    if (write(device, packet, length) != (ssize_t)length) fail_with_errno("the device does not take a packet");
}

static void send_opening(uint32_t index) {
    struct client *c = &clients[index];
    struct opening_segment s = {
        .offload = unsummed,
        .ip = ip_header(index, sizeof s - sizeof s.offload),
        .segment_size = {TCPOPT_MAXSEG, 4, SEGMENT_MAX >> 8, SEGMENT_MAX & 255},
        .selective = {TCPOPT_SACK_PERMITTED, 2},
        .timestamp = {TCPOPT_TIMESTAMP, 10},
        .nothing = TCPOPT_NOP,
        .scale = {TCPOPT_WINDOW, 3, WINDOW_SCALE},
    };
    const uint32_t time = htonl(our_time());
    memcpy(s.timestamp + 2, &time, sizeof time);
    c->next = index * 64007 + (uint32_t)now; /* any number will do: nobody guesses on this link */
    c->acknowledged = c->next;
    c->state = CONNECTING;
    c->sent_ns = now;
    s.tcp = tcp_header(c, sizeof s - sizeof s.offload - sizeof s.ip);
    s.tcp.syn = 1;
    c->next++;
    in_flight++;
    put(&s, sizeof s);
}

enum flags { ACKNOWLEDGE, PUSH, RESET };

static void send_segment(uint32_t index, enum flags flags, const uint8_t *payload, uint32_t length) {
    struct client *c = &clients[index];
    const size_t headers = offsetof(struct segment, payload);
    static struct segment s;
    s.offload = unsummed;
    s.ip = ip_header(index, headers - sizeof s.offload + length);
    s.tcp = tcp_header(c, headers - sizeof s.offload - sizeof s.ip);
    s.tcp.ack = 1;
    s.tcp.psh = flags == PUSH;
    s.tcp.rst = flags == RESET;
    s.timestamp[0] = htonl(TIMESTAMP_WORD);
    s.timestamp[1] = htonl(our_time());
    s.timestamp[2] = htonl(c->echo);
    memcpy(s.payload, payload, length);
    c->next += length;
    put(&s, headers + length);
}

static void send_message(uint32_t index) {
    struct client *c = &clients[index];
    if (c->window < bytes) fail("the service reads too little: its window has no room for a message");
    c->number++;
    c->received = 0;
    c->sent_ns = now;
    in_flight++;
    send_segment(index, PUSH, message_bytes(c->number, index), bytes);
}

static void acknowledge(uint32_t index) { send_segment(index, ACKNOWLEDGE, (const uint8_t *)"", 0); }

/* ---- Receiving ---- */

static void open_next(void) {
    if (begun < count) send_opening(begun++);
}

/* Finds the timestamp and, in a SYN, the scale of windows. */
static void read_options(struct client *c, const uint8_t *option, const uint8_t *end) {
    while (option < end && *option != TCPOPT_EOL) {
        if (*option == TCPOPT_NOP) {
            option++;
            continue;
        }
        if (end - option < 2 || option[1] < 2 || option[1] > end - option) fail("the service sends options that are cut");
        if (option[0] == TCPOPT_TIMESTAMP && option[1] == TCPOLEN_TIMESTAMP) {
            uint32_t theirs;
            memcpy(&theirs, option + 2, sizeof theirs);
            c->echo = ntohl(theirs);
        }
        if (option[0] == TCPOPT_WINDOW && option[1] == TCPOLEN_WINDOW && option[2] <= 14) c->scale = option[2];
        option += option[1];
    }
}

static void finish_handshake(uint32_t index, const struct tcphdr *tcp) {
    struct client *c = &clients[index];
    if (tcp->rst) fail("the service refuses a connection");
    if (!tcp->syn || !tcp->ack || ntohl(tcp->ack_seq) != c->next) fail("the service answers a SYN with something else");
    c->acknowledged = c->next;
    c->expected = ntohl(tcp->seq) + 1;
    c->window = ntohs(tcp->window); /* never scaled in a SYN */
    c->state = OPENING;
    in_flight--;
    send_message(index);
}

static void take_answer(uint32_t index) {
    struct client *c = &clients[index];
    if (c->acknowledged != c->next) fail("the service answers a message that its system has not acknowledged");
    in_flight--;
    if (c->state == OPENING) {
        c->state = OPEN;
        open_count++;
        open_next();
        return;
    }
    if (measured) take_sample(now - c->sent_ns);
    if (sending) due[due_count++] = index;
}

static void take_bytes(uint32_t index, const uint8_t *payload, uint32_t length) {
    struct client *c = &clients[index];
    if (length > bytes - c->received) fail("the service sends more than it was sent");
    if (memcmp(payload, message_bytes(c->number, index) + c->received, length) != 0) fail("the service has spoilt a message");
    c->expected += length;
    c->received += length;
    if (c->received == bytes)
        take_answer(index);
    else
        acknowledge(index); /* the rest may wait for it */
}

static void take_segment(uint32_t index, const struct tcphdr *tcp, const uint8_t *payload, uint32_t length) {
    struct client *c = &clients[index];
    const uint32_t acknowledged = ntohl(tcp->ack_seq), ahead = ntohl(tcp->seq) - c->expected;
    if (c->state == CLOSED) return; /* of a run before */
    heard_ns = now;
    read_options(c, (const uint8_t *)(tcp + 1), payload);
    if (c->state == CONNECTING) {
        finish_handshake(index, tcp);
        return;
    }
    if (tcp->rst || tcp->fin) fail("the service has ended a connection");
    if (tcp->syn || ahead > INT32_MAX) { /* repeated, because this program was held up */
        if (c->acknowledged == c->next) acknowledge(index); /* otherwise what is in flight does so */
        return;
    }
    if (!tcp->ack || acknowledged - c->acknowledged > c->next - c->acknowledged)
        fail("the service acknowledges what was never sent");
    c->acknowledged = acknowledged;
    c->window = (uint32_t)ntohs(tcp->window) << c->scale;
    if (ahead > 0) fail("a segment of the service was lost");
    if (length > 0) take_bytes(index, payload, length);
}

/* A packet out of the device. What is not for a client is the system's own, such as its search for routers. */
static void take_packet(const uint8_t *packet, size_t size) {
    const struct iphdr *ip = (const void *)packet;
    if (size < sizeof *ip + sizeof(struct tcphdr) || ip->version != 4 || ip->protocol != IPPROTO_TCP) return;
    const struct tcphdr *tcp = (const void *)(packet + 4u * ip->ihl);
    const uint32_t index = ntohl(ip->daddr) - first_address;
    if (index >= count || tcp->source != htons(service_port) || tcp->dest != htons(client_port)) return;
    const size_t payload_at = 4u * ip->ihl + 4u * tcp->doff, length = ntohs(ip->tot_len);
    if (tcp->doff < 5 || payload_at > length || length > size) fail("the service sends a packet whose lengths are wrong");
    take_segment(index, tcp, packet + payload_at, (uint32_t)(length - payload_at));
}

/* ---- The run ---- */

static bool all_open(void) { return open_count == count; }
static bool none_in_flight(void) { return in_flight == 0; }
static bool any_measured(void) { return messages > 0; }
static bool never(void) { return false; }

static void send_due(void) {
    for (uint32_t i = 0; i < due_count; i++) send_message(due[i]);
    due_count = 0;
}

/* One packet from the device, if there is one, and every BURST packets, or when there are no more, what is due. */
static bool take_one(void) {
    enum { SHIFT = 2 }; /* so that the headers behind that of the device are aligned */
    static _Alignas(64) uint8_t buffer[PACKET_MAX];
    const size_t ip_at = SHIFT + sizeof(struct virtio_net_hdr);
    const ssize_t got = read(device, buffer + SHIFT, sizeof buffer - SHIFT);
    if (got < 0 && errno != EAGAIN) fail_with_errno("the device cannot be read");
    now = now_ns();
    const bool idle = got < 0 && due_count == 0;
    if (got > (ssize_t)sizeof(struct virtio_net_hdr))
        take_packet(buffer + ip_at, (size_t)got - sizeof(struct virtio_net_hdr));
    if (got < 0 || due_count == BURST) send_due();
    return !idle;
}

/* Takes packets until the time is over or `done` says so. Returns the nanoseconds in which there was nothing to do: as many
 * times what a look in vain takes as there were such looks. How long that is, those tell which follow each other. */
static uint64_t drive(uint64_t until_ns, bool (*done)(void)) {
    uint64_t idle = 0, in_a_row = 0, in_a_row_ns = 0;
    bool was_idle = false;
    for (heard_ns = now = now_ns(); now < until_ns && !done();) {
        const uint64_t before = now;
        const bool is_idle = !take_one();
        idle += is_idle;
        in_a_row += is_idle && was_idle;
        in_a_row_ns += is_idle && was_idle ? now - before : 0;
        was_idle = is_idle;
        if (now - heard_ns > PATIENCE_MS * 1000000ull) fail("nothing has come from the service for ten seconds");
    }
    return in_a_row == 0 ? 0 : (uint64_t)((double)in_a_row_ns / (double)in_a_row * (double)idle);
}

static void open_all(void) {
    now = now_ns();
    for (int i = 0; i < OPENING_MAX; i++) open_next();
    drive(UINT64_MAX, all_open);
}

static void start_all(void) {
    sending = true;
    for (uint32_t i = 0; i < count; i++) {
        now = now_ns();
        send_message(i);
    }
}

static void end_all(void) {
    sending = false;
    send_due();
    drive(UINT64_MAX, none_in_flight);
    for (uint32_t i = 0; i < count; i++) {
        send_segment(i, RESET, (const uint8_t *)"", 0);
        if (i % BURST == BURST - 1) usleep(PAUSE_US); /* the system of the service has to find room for all of them */
    }
}

static void read_arguments(char **argv) {
    struct in_addr address;
    device = atoi(argv[1]);
    if (inet_pton(AF_INET, argv[2], &address) != 1) fail("ADDRESS is no IPv4 address");
    service_address = ntohl(address.s_addr);
    first_address = service_address + FIRST_CLIENT;
    service_port = (uint16_t)atoi(argv[3]);
    count = (uint32_t)atoi(argv[4]);
    bytes = (uint32_t)atoi(argv[5]);
    if (count < 1 || count > CONNECTIONS_MAX) fail("CONNECTIONS must be 1 to 60000");
    if (bytes < 1 || bytes > SEGMENT_MAX - sizeof ((struct segment *)0)->timestamp) fail("BYTES must be 1 to 1448");
    client_port = (uint16_t)(1024 + now_ns() / 1000 % 60000); /* so that what is left of a run before is nobody's */
}

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    read_arguments(argv);
    clients = calloc(count, sizeof *clients);
    if (clients == NULL) fail("there is no memory for the connections");
    make_samples();
    open_all();
    start_all();
    drive(now_ns() + (uint64_t)atoi(argv[6]) * 1000000u, never);
    measured = true;
    const uint64_t begin_ns = now_ns();
    const uint64_t idle_ns = drive(begin_ns + (uint64_t)atoi(argv[7]) * 1000000u, never);
    if (!any_measured()) drive(UINT64_MAX, any_measured); /* on a machine that is busy elsewhere */
    const uint64_t elapsed_ns = now_ns() - begin_ns;
    measured = false;
    end_all();
    print_samples(elapsed_ns, idle_ns < elapsed_ns ? 1 - (double)idle_ns / (double)elapsed_ns : 0);
    return 0;
}
