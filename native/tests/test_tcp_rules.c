/* What RFCs ask of a TCP that serves, rule by rule, each played segment by segment. */
#define EDGEOS_TCP 1
#include "tcp_scene.h"

#define FIRST (sent[0].segment)
#define LAST (sent[sent_count - 1].segment)

static uint32_t wanted;

/* Sends so many bytes, and then ends. */
static int source(ledger *l, edgeos_message *m) {
    static const uint8_t bytes[1000];
    if (m->kind != EDGEOS_OPEN && m->kind != EDGEOS_ROOM) return EDGEOS_DONE;
    while (l->sent_len < wanted)
        if (service_send(l, bytes, least(wanted - l->sent_len, sizeof bytes)) == 0) return EDGEOS_DONE;
    service_finish(l);
    return EDGEOS_DONE;
}

/* A client that is sent `bytes`, and has acknowledged nothing yet. */
static client connect_to_source(uint32_t bytes) {
    wanted = bytes;
    client c = make_client(1);
    say(&c, FLAG_SYN, 0);
    c.seq++, c.ack = FIRST.seq + 1;
    say(&c, FLAG_ACK, 0);
    return c;
}

static bool is_ack(const segment *s, const client *c) {
    return s->flags == FLAG_ACK && s->len == 0 && s->ack == c->seq && s->seq == c->ack;
}

/* RFC 9293, 3.5 and 3.7.1; RFC 7323, 2.2 */
static void test_the_answer_to_an_opening(void) {
    for (int family = 4; family <= 6; family += 2)
        for (int scale = -1; scale < 15; scale += 5) {
            uint8_t frame[EDGEOS_SLOT_SIZE];
            begin("the answer to an opening", sink);
            client c = make_client(1);
            c.path.family = (uint8_t)family;
            const segment s = {.seq = 77, .window = 1000, .mss = 1460, .scale = (int8_t)scale, .flags = FLAG_SYN, .options = 2};
            sent_count = 0;
            host_receive(1, frame, segment_write(frame, &c.path, &s));
            host_run();
            HOST_CHECK(sent_count == 1 && FIRST.flags == (FLAG_SYN | FLAG_ACK) && FIRST.ack == 78);
            HOST_CHECK(FIRST.mss == (family == 4 ? 1460 : 1440) && (FIRST.scale >= 0) == (scale >= 0));
        }
}

/* RFC 6298, 2.1 and 5.5: after 1 s, and each time after twice as long. */
static void test_an_answer_that_nobody_takes(void) {
    begin("an answer that nobody takes", sink);
    client c = make_client(1);
    say(&c, FLAG_SYN, 0);
    for (uint32_t ms = 1000; ms <= 8000; ms *= 2) {
        wait_ms(ms - 100);
        HOST_CHECK(sent_count == 0);
        wait_ms(100);
        HOST_CHECK(sent_count == 1 && FIRST.flags == (FLAG_SYN | FLAG_ACK));
    }
    wait_ms(60000);
    HOST_CHECK(sent_count == 0 && tcp.connection_count == 0 && host.ended[1] == 1 && !ledgers[1].open);
}

/* RFC 6928, and RFC 5681, 3.1: each segment that is acknowledged lets two follow. */
static void test_a_slow_start(void) {
    begin("a slow start", source);
    client c = connect_to_source(50000);
    HOST_CHECK(sent_count == 10 && LAST.len == 1460 && LAST.seq == c.ack + 9 * 1460);
    c.ack += 2 * 1460;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 3 || sent_count == 4);
}

/* RFC 5681, 3.2; RFC 6582: no timer is waited for, and only what is missing is sent again. */
static void test_three_duplicates(void) {
    begin("three duplicates", source);
    client c = connect_to_source(14600);
    for (int i = 0; i < 2; i++) {
        say(&c, FLAG_ACK, 0);
        HOST_CHECK(sent_count == 0 || FIRST.seq != c.ack);
    }
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 1 && FIRST.seq == c.ack && FIRST.len == 1460);
    c.ack += 4 * 1460; /* the next hole */
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count >= 1 && FIRST.seq == c.ack && FIRST.len == 1460 && tcp_repeated.value == 2);
    c.ack += 6 * 1460 + 1;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 0 && tcp.used_blocks == 0);
}

/* RFC 6298, 5; RFC 9293, 3.8.3 */
static void test_a_client_that_is_gone(void) {
    begin("a client that is gone", source);
    client c = connect_to_source(500);
    for (uint32_t i = 0; i < TCP_TRIES_MAX; i++) {
        wait_ms((200u << i) - 10);
        HOST_CHECK(sent_count == 0);
        wait_ms(10);
        HOST_CHECK(sent_count == 1 && FIRST.seq == c.ack);
    }
    wait_ms(200u << TCP_TRIES_MAX);
    HOST_CHECK(sent_count == 1 && FIRST.flags & FLAG_RST && ledgers[1].ended && host.ended[1] == 1);
    HOST_CHECK(tcp_given_up.value == 1 && tcp.used_blocks == 0);
}

/* RFC 9293, 3.8.6.1: asked without end, as long as the client answers. */
static void test_a_window_that_stays_closed(void) {
    begin("a window that stays closed", echo);
    client c = connect_client(1);
    c.window = 0;
    say(&c, FLAG_ACK, 300);
    c.seq += 300;
    uint32_t asked = 0;
    for (int i = 0; i < 3600; i++) {
        wait_ms(1000);
        if (sent_count == 0) continue;
        HOST_CHECK(sent_count <= 3 && FIRST.len == 1 && FIRST.seq == c.ack);
        asked++;
        say(&c, FLAG_ACK, 0);
    }
    HOST_CHECK(asked > 20 && tcp.connection_count == 1);
}

/* RFC 5961, 3.2, 4.2, 5.2 */
static void test_challenges(void) {
    begin("challenges", echo);
    client c = connect_client(1), forger = c;
    forger.seq += 1000;
    say(&forger, FLAG_RST, 0);
    HOST_CHECK(sent_count == 1 && is_ack(&FIRST, &c));
    forger.seq += 100000;
    say(&forger, FLAG_RST, 0);
    HOST_CHECK(sent_count == 0);
    say(&forger, FLAG_SYN, 0);
    HOST_CHECK(sent_count == 1 && is_ack(&FIRST, &c));
    forger = c;
    forger.ack += 1; /* what was never sent */
    say(&forger, FLAG_ACK, 10);
    HOST_CHECK(sent_count == 1 && is_ack(&FIRST, &c) && ledgers[1].received == 0);
    forger.ack = c.ack - 100000; /* older than any window */
    say(&forger, FLAG_ACK, 10);
    HOST_CHECK(sent_count == 1 && is_ack(&FIRST, &c) && ledgers[1].received == 0);
    say(&c, FLAG_RST, 0);
    HOST_CHECK(sent_count == 0 && ledgers[1].ended && host.ended[1] == 1);
}

/* RFC 9293, 3.10.7.1 */
static void test_segments_of_no_connection(void) {
    begin("segments of no connection", sink);
    const uint8_t flags[] = {0, FLAG_FIN, FLAG_ACK, FLAG_ACK | FLAG_FIN, FLAG_ACK | FLAG_SYN, FLAG_RST, FLAG_RST | FLAG_ACK};
    for (uint32_t i = 0; i < sizeof flags; i++) {
        client c = make_client(i + 1);
        c.ack = 4711;
        say(&c, flags[i], 5);
        if (flags[i] & FLAG_RST) {
            HOST_CHECK(sent_count == 0);
        } else if (flags[i] & FLAG_ACK) {
            HOST_CHECK(sent_count == 1 && FIRST.flags == FLAG_RST && FIRST.seq == 4711);
        } else {
            HOST_CHECK(sent_count == 1 && FIRST.flags == (FLAG_RST | FLAG_ACK) && FIRST.seq == 0);
            HOST_CHECK(FIRST.ack == c.seq + 5 + (flags[i] & FLAG_FIN));
        }
        HOST_CHECK(host.ended[i + 1] == 1);
    }
}

/* RFC 9293, 3.6: the client ends first, and the service goes on. */
static void test_half_an_end(void) {
    begin("half an end", sink);
    client c = connect_client(1);
    say(&c, FLAG_ACK | FLAG_FIN, 20);
    c.seq += 21;
    HOST_CHECK(sent_count == 1 && is_ack(&FIRST, &c) && ledgers[1].half_closed && !ledgers[1].ended);
    service = source;
    wanted = 100;
    edgeos_message room = {.kind = EDGEOS_ROOM};
    source(&ledgers[1], &room); /* as when another connection leads to it */
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 1 && FIRST.len == 100 && FIRST.flags & FLAG_FIN);
    c.ack += 101;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 0 && ledgers[1].ended && host.ended[1] == 1 && tcp.connection_count == 0);
}

/* The service ends first: its end waits for what is late (RFC 9293, 3.6.1), and gives way to a new opening. */
static void test_late_segments(void) {
    begin("late segments", source);
    client c = connect_to_source(0);
    HOST_CHECK(sent_count == 1 && FIRST.flags & FLAG_FIN);
    c.ack++;
    say(&c, FLAG_ACK | FLAG_FIN, 0);
    HOST_CHECK(sent_count == 1 && FIRST.ack == c.seq + 1 && ledgers[1].ended && host.ended[1] == 0);
    wait_ms(TCP_LAST_MS - 100);
    say(&c, FLAG_ACK | FLAG_FIN, 0); /* it has not got the acknowledgement */
    HOST_CHECK(sent_count == 1 && FIRST.ack == c.seq + 1 && host.ended[1] == 0);
    say(&c, FLAG_SYN, 0); /* an old one */
    HOST_CHECK(sent_count == 1 && !(FIRST.flags & FLAG_SYN));
    c.seq += 1000, ledgers[1].origin = c.seq + 1;
    say(&c, FLAG_SYN, 0);
    HOST_CHECK(sent_count == 1 && FIRST.flags == (FLAG_SYN | FLAG_ACK) && FIRST.ack == c.seq + 1);
    c.seq++, c.ack = FIRST.seq + 1;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(ledgers[1].open && !ledgers[1].ended && tcp_opened.value == 2);
}

/* Bytes behind an end: one of both is not true, and what came first counts. */
static void test_an_end_that_bytes_contradict(void) {
    begin("an end that bytes contradict", sink);
    client c = connect_client(1), liar = c;
    liar.seq += 100;
    say(&liar, FLAG_ACK, 10);
    liar.seq = c.seq + 50;
    say(&liar, FLAG_ACK | FLAG_FIN, 0);
    say(&c, FLAG_ACK, 100);
    HOST_CHECK(ledgers[1].received == 110 && !ledgers[1].half_closed);
    c.seq += 110;
    say(&c, FLAG_ACK | FLAG_FIN, 0);
    HOST_CHECK(ledgers[1].half_closed);
    c.seq += 1;
    say(&c, FLAG_ACK, 10);
    HOST_CHECK(ledgers[1].received == 110 && sent_count == 1 && is_ack(&FIRST, &c));
}

/* Both ends cross. */
static void test_ends_that_cross(void) {
    begin("ends that cross", source);
    client c = connect_to_source(0);
    say(&c, FLAG_ACK | FLAG_FIN, 0);
    c.seq++, c.ack++;
    HOST_CHECK(sent_count == 1 && FIRST.ack == c.seq);
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(ledgers[1].ended && host.ended[1] == 0);
    wait_ms(TCP_LAST_MS + 100);
    HOST_CHECK(host.ended[1] == 1);
}

static void bring_malformed(const uint8_t *frame, uint32_t len) {
    const uint64_t before = tcp_malformed.value;
    const uint32_t dropped = host.dropped;
    sent_count = 0;
    host_receive(1, frame, len);
    host_run();
    HOST_CHECK(sent_count == 0 && tcp_malformed.value == before + 1 && host.dropped == dropped + 1);
}

static void test_malformed_packets(void) {
    begin("malformed packets", sink);
    for (int family = 4; family <= 6; family += 2) {
        const path p = {.family = (uint8_t)family, .port = 40001};
        const segment s = {.flags = FLAG_SYN, .mss = 1460, .scale = 3, .len = 9, .data = (const uint8_t *)"some data"};
        uint8_t good[EDGEOS_SLOT_SIZE], bad[EDGEOS_SLOT_SIZE];
        const uint32_t len = segment_write(good, &p, &s), tcp_at = family == 4 ? 34 : 54;
        for (uint32_t cut = 0; cut < len; cut++) bring_malformed(good, cut);
        for (uint32_t at = 0; at < len; at++) { /* hop limits have no checksum in IPv6, nor traffic classes and MAC addresses */
            if (at < 12 ? at != 0 : family == 6 && (at == 15 || at == 16 || at == 17 || at == 21)) continue;
            memcpy(bad, good, len);
            bad[at] ^= at == 14 ? 0x30 : 1;
            bring_malformed(bad, len);
        }
        for (uint32_t header = 0; header < 16; header++) {
            if (header >= 5 && header * 4 <= len - tcp_at) continue;
            memcpy(bad, good, len);
            bad[tcp_at + 12] = (uint8_t)(header << 4);
            put16(bad + tcp_at + 16, 0);
            put16(bad + tcp_at + 16, ~segment_sum(bad + 14, p.family, bad + tcp_at, len - tcp_at) & 0xffff);
            bring_malformed(bad, len);
        }
    }
    HOST_CHECK(tcp.connection_count == 0);
}

static void test_fragments(void) {
    begin("fragments", sink);
    const path p = {.family = 4, .port = 40001};
    const segment s = {.flags = FLAG_SYN, .mss = 1460, .scale = -1};
    const uint16_t fields[] = {0x2000, 0x0001, 0x1fff, 0x6000};
    for (uint32_t i = 0; i < 4; i++) {
        uint8_t frame[EDGEOS_SLOT_SIZE];
        const uint32_t len = segment_write(frame, &p, &s);
        put16(frame + 20, fields[i]);
        put16(frame + 24, 0);
        put16(frame + 24, ~fold(sum_of(frame + 14, 20)) & 0xffff);
        bring_malformed(frame, len);
    }
}

int main(void) {
    test_the_answer_to_an_opening();
    test_an_answer_that_nobody_takes();
    test_a_slow_start();
    test_three_duplicates();
    test_a_client_that_is_gone();
    test_a_window_that_stays_closed();
    test_challenges();
    test_segments_of_no_connection();
    test_half_an_end();
    test_late_segments();
    test_an_end_that_bytes_contradict();
    test_ends_that_cross();
    test_malformed_packets();
    test_fragments();
    ledgers_clear();
    puts("all passed");
    return 0;
}
