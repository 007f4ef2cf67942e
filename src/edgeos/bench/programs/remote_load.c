/* remote_load: clients on other machines, as a service sees them: one message in flight on each of many connections.
 *
 *     remote_load TAP ADDRESS PORT CONNECTIONS BYTES WARM_UP_MS MILLISECONDS
 *
 * TAP is the number of an open TAP device (IFF_NO_PI, IFF_VNET_HDR, offload of checksums). At its other end this program is
 * a router, behind which are clients with an address each, from ADDRESS + 65536 + 256 on, and speaks TCP for all of them.
 * The system of the service has no part in it: its TCP is that of the service alone. The program never sleeps.
 *
 * TCP (RFC 9293) as far as such a client needs it on a link that does not reorder: handshake with the options of a common
 * system, timestamps (RFC 7323) where the service has them, too, acknowledgements that ride on the next message, the
 * service's window, a reset at the end. What is not answered within a second (RFC 6298) is sent again. What a correct peer
 * never sends is an error.
 *
 * A connection is open when its first message is back, and only OPENING_MAX are being opened at a time, so that nobody's
 * backlog overflows. When the time is over, every message in flight is awaited. Prints what echo_messages.h says, and in a
 * second line how often something was sent again; the share of the core is that of the time in which a packet waited.
 * Status 1, saying why, when the service refuses, ends or spoils a connection, or answers nothing for ten seconds.
 */
#define _GNU_SOURCE /* for struct tcphdr as musl has it */
#include <unistd.h>

#include "echo_messages.h"
#include "remote_packets.h"

enum {
    BURST = 64, /* packets that are taken before what they made due is sent: code stays in the caches meanwhile */
    OPENING_MAX = 128,
    START_TAKES = 4 * BURST, /* packets taken before the next BURST clients start */
    PAUSE_US = 1000,
    CONNECTIONS_MAX = 60000,
    FIRST_CLIENT = 65536 + 256, /* beyond the service's own address */
    MESSAGE_MAX = 512,          /* every service takes segments of that size */
    WINDOW = 65535,
    WINDOW_SCALE = 7,
    REPEAT_MS = 1000,
    LOOK_MS = 100 /* for what is to be sent again */
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
    bool timestamps;
    uint64_t sent_ns, repeat_ns;
};

static int device;
static uint32_t bytes, count;
static uint32_t first_address; /* of a client, host byte order */
static struct packet leaving;  /* the next packet to send; most of it is always the same */
static struct client *clients;
static uint32_t begun, open_count, in_flight, repeated;
static bool sending, measured;
static uint32_t due[BURST], due_count; /* clients whose next message is to be sent */
static uint64_t now; /* when the packet that is dealt with was taken from the device */
static uint64_t heard_ns, looked_ns; /* when a client last got an answer; when what is late was last looked for */

/* ---- Sending ---- */

static uint32_t our_time(void) { return (uint32_t)(now / 1000000u); }

/* Sends `leaving`, which has so many bytes of options and payload, for a client. */
static void send_packet(uint32_t index, uint8_t flags, uint32_t sequence, size_t options, size_t payload) {
    leaving.ip.saddr = htonl(first_address + index);
    leaving.tcp.seq = htonl(sequence);
    leaving.tcp.ack_seq = htonl(clients[index].expected);
    leaving.tcp.th_flags = flags;
    const size_t length = finish_packet(&leaving, options, payload);
    if (write(device, &leaving, length) != (ssize_t)length) fail_with_errno("the device does not take a packet");
}

static void send_opening(uint32_t index) {
    const uint8_t options[] = {
        TCPOPT_MAXSEG, 4, SEGMENT_MAX >> 8, SEGMENT_MAX & 255,
        TCPOPT_SACK_PERMITTED, 2,
        TCPOPT_TIMESTAMP, 10, 0, 0, 0, 0, 0, 0, 0, 0,
        TCPOPT_NOP,
        TCPOPT_WINDOW, 3, WINDOW_SCALE,
    };
    const uint32_t time = htonl(our_time());
    memcpy(leaving.rest, options, sizeof options);
    memcpy(leaving.rest + 8, &time, sizeof time);
    send_packet(index, TH_SYN, clients[index].acknowledged, sizeof options, 0);
}

/* A segment after the SYN. */
static void send_segment(uint32_t index, uint8_t flags, uint32_t sequence, const uint8_t *payload, uint32_t length) {
    size_t options = 0;
    if (clients[index].timestamps) {
        const uint32_t timestamp[] = {htonl(TIMESTAMP_WORD), htonl(our_time()), htonl(clients[index].echo)};
        memcpy(leaving.rest, timestamp, sizeof timestamp);
        options = sizeof timestamp;
    }
    memcpy(leaving.rest + options, payload, length);
    send_packet(index, flags, sequence, options, length);
}

static void acknowledge(uint32_t index) { send_segment(index, TH_ACK, clients[index].next, (const uint8_t *)"", 0); }

static void send_in_flight(uint32_t index) {
    struct client *c = &clients[index];
    c->repeat_ns = now + REPEAT_MS * 1000000ull;
    if (c->state == CONNECTING)
        send_opening(index);
    else
        send_segment(index, TH_ACK | TH_PUSH, c->next - bytes, message_bytes(c->number, index), bytes);
}

static void open_connection(uint32_t index) {
    struct client *c = &clients[index];
    c->acknowledged = index * 64007 + (uint32_t)now; /* any number will do: nobody guesses on this link */
    c->next = c->acknowledged + 1;
    c->state = CONNECTING;
    in_flight++;
    send_in_flight(index);
}

static void send_message(uint32_t index) {
    struct client *c = &clients[index];
    if (c->window < bytes) fail("the service reads too little: its window has no room for a message");
    c->number++;
    c->received = 0;
    c->sent_ns = now;
    c->next += bytes;
    in_flight++;
    send_in_flight(index);
}

/* What the service has not acknowledged for long, once more. */
static void repeat_late(void) {
    looked_ns = now;
    for (uint32_t i = 0; i < begun; i++) {
        if (clients[i].acknowledged == clients[i].next || now < clients[i].repeat_ns) continue;
        repeated++;
        send_in_flight(i);
    }
}

/* ---- Receiving ---- */

static void open_next(void) {
    if (begun < count) open_connection(begun++);
}

static void finish_handshake(uint32_t index, const struct tcphdr *tcp, const struct options *options) {
    struct client *c = &clients[index];
    if (tcp->th_flags & TH_RST) fail("the service refuses a connection");
    if ((tcp->th_flags & (TH_SYN | TH_ACK)) != (TH_SYN | TH_ACK) || ntohl(tcp->ack_seq) != c->next)
        fail("the service answers a SYN with something else");
    c->acknowledged = c->next;
    c->expected = ntohl(tcp->seq) + 1;
    c->window = ntohs(tcp->window); /* never scaled in a SYN */
    c->scale = options->scale;
    c->timestamps = options->has_timestamp;
    c->echo = options->timestamp;
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
    heard_ns = now;
    if (c->received == bytes)
        take_answer(index);
    else
        acknowledge(index); /* the rest may wait for it */
}

static void take_segment(uint32_t index, const struct tcphdr *tcp, const uint8_t *payload, uint32_t length) {
    struct client *c = &clients[index];
    const uint32_t acknowledged = ntohl(tcp->ack_seq), ahead = ntohl(tcp->seq) - c->expected;
    struct options options = {0};
    if (c->state == CLOSED) return; /* of a run before */
    if (!read_options(&options, (const uint8_t *)(tcp + 1), payload)) fail("the service sends options that are cut");
    if (c->state == CONNECTING) {
        finish_handshake(index, tcp, &options);
        return;
    }
    if (tcp->th_flags & (TH_RST | TH_FIN)) fail("the service has ended a connection");
    if ((tcp->th_flags & TH_SYN) || ahead > INT32_MAX) { /* repeated, because this program was held up */
        if (c->acknowledged == c->next) acknowledge(index); /* otherwise what is in flight does so */
        return;
    }
    if (!(tcp->th_flags & TH_ACK) || acknowledged - c->acknowledged > c->next - c->acknowledged)
        fail("the service acknowledges what was never sent");
    c->acknowledged = acknowledged;
    c->window = (uint32_t)ntohs(tcp->window) << c->scale;
    if (c->timestamps) c->echo = options.timestamp;
    if (ahead > 0) fail("a segment of the service was lost");
    if (length > 0) take_bytes(index, payload, length);
}

/* A frame out of the device. What is not for a client is the system's own, such as its search for routers. */
static void take_packet(const struct packet *p, size_t size) {
    const uint8_t *payload;
    uint32_t length;
    if (size < offsetof(struct packet, rest) || !is_for_router(p)) return;
    const uint32_t index = ntohl(p->ip.daddr) - first_address;
    if (index >= count || p->tcp.source != leaving.tcp.dest || p->tcp.dest != leaving.tcp.source) return;
    const char *why = check_packet(p, size, &payload, &length);
    if (why != NULL) fail(why);
    take_segment(index, &p->tcp, payload, length);
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
    static _Alignas(64) struct packet arrived;
    const ssize_t got = read(device, &arrived, sizeof arrived);
    if (got < 0 && errno != EAGAIN) fail_with_errno("the device cannot be read");
    now = now_ns();
    const bool idle = got < 0 && due_count == 0;
    if (got > 0) take_packet(&arrived, (size_t)got);
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
        if (now - looked_ns > LOOK_MS * 1000000ull) repeat_late();
        if (now - heard_ns > PATIENCE_MS * 1000000ull) fail("nothing has come from the service for ten seconds");
    }
    return in_a_row == 0 ? 0 : (uint64_t)((double)in_a_row_ns / (double)in_a_row * (double)idle);
}

static void open_all(void) {
    now = now_ns();
    for (int i = 0; i < OPENING_MAX; i++) open_next();
    drive(UINT64_MAX, all_open);
}

/* Not all at once, which no ring of a device has room for, but while those are served that have started. */
static void start_all(void) {
    sending = true;
    for (uint32_t i = 0; i < count; i++) {
        now = now_ns();
        send_message(i);
        if (i % BURST == BURST - 1)
            for (int taken = 0; taken < START_TAKES && take_one(); taken++) {
            }
    }
}

static void end_all(void) {
    sending = false;
    send_due();
    drive(UINT64_MAX, none_in_flight);
    for (uint32_t i = 0; i < count; i++) {
        send_segment(i, TH_RST | TH_ACK, clients[i].next, (const uint8_t *)"", 0);
        if (i % BURST == BURST - 1) usleep(PAUSE_US); /* the system of the service has to find room for all of them */
    }
}

static void read_arguments(char **argv) {
    struct in_addr address;
    device = atoi(argv[1]);
    if (inet_pton(AF_INET, argv[2], &address) != 1) fail("ADDRESS is no IPv4 address");
    first_address = ntohl(address.s_addr) + FIRST_CLIENT;
    count = (uint32_t)atoi(argv[4]);
    bytes = (uint32_t)atoi(argv[5]);
    if (count < 1 || count > CONNECTIONS_MAX) fail("CONNECTIONS must be 1 to 60000");
    if (bytes < 1 || bytes > MESSAGE_MAX) fail("BYTES must be 1 to 512");
    leaving = blank;
    leaving.ip.daddr = address.s_addr;
    leaving.tcp.source = htons((uint16_t)(1024 + now_ns() / 1000 % 60000)); /* what is left of a run before is nobody's */
    leaving.tcp.dest = htons((uint16_t)atoi(argv[3]));
    leaving.tcp.window = htons(WINDOW);
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
    printf("%u\n", repeated);
    return 0;
}
