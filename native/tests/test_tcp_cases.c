/* The guest's own TCP in scenes that chance hardly meets, each played segment by segment. */
#define EDGEOS_TCP 1
#define EDGEOS_TCP_CONNECTIONS 128
#include "tcp_scene.h"

static int finish_at_once(ledger *l, edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN) service_finish(l);
    return EDGEOS_DONE;
}

static int finish_then_close(ledger *l, edgeos_message *m) {
    if (m->kind != EDGEOS_DATA) return EDGEOS_DONE;
    if (l->finished) service_close(l);
    else service_finish(l);
    return EDGEOS_DONE;
}

/* A client whose window is closed drops the byte that asks for it. When it opens, the stream goes on from there at once. */
static void test_the_byte_that_asked_is_sent_again(void) {
    begin("the byte that asked is sent again", echo);
    client c = connect_client(1);
    c.window = 0;
    say(&c, FLAG_ACK | FLAG_PSH, 100);
    c.seq += 100;
    for (int i = 0; i < 4; i++) {
        wait_ms(i ? 400u << i : 1000);
        HOST_CHECK(sent_count >= 1 && sent[0].segment.len == 1 && sent[0].segment.seq == c.ack);
        say(&c, FLAG_ACK, 0);
    }
    c.window = 60000;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count == 1 && sent[0].segment.seq == c.ack && sent[0].segment.len == 100);
}

/* The end takes a number, but no room in the window. */
static void test_an_end_behind_a_full_window(void) {
    begin("an end behind a full window", echo);
    client c = connect_client(1);
    c.window = 0;
    while (tcp.connections[0].edge != c.seq) {
        const uint32_t room = tcp.connections[0].edge - c.seq, len = room < 1460 ? room : 1460;
        say(&c, FLAG_ACK, len);
        c.seq += len;
    }
    say(&c, FLAG_ACK | FLAG_FIN, 0);
    c.seq++;
    c.window = 60000;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(sent_count >= 1 && sent[0].segment.len > 0);
}

/* Who finishes first and closes later waits for a client that never ends no longer than who closes at once. */
static void test_closing_what_was_finished_before(void) {
    begin("closing what was finished before", finish_then_close);
    client c = connect_client(1);
    for (int i = 0; i < 2; i++) {
        say(&c, FLAG_ACK, 10);
        c.seq += 10, c.ack += i == 0;
        say(&c, FLAG_ACK, 0);
    }
    HOST_CHECK(ledgers[1].left && tcp.connection_count == 1);
    wait_ms(TCP_LINGER_MS + 1000);
    HOST_CHECK(tcp.connection_count == 0 && host.ended[1] == 1);
}

/* The host has forgotten the flow once and given it another number. */
static void test_a_bad_packet_under_a_new_number(void) {
    begin("a bad packet under a new number", echo);
    client c = connect_client(1);
    uint8_t frame[EDGEOS_SLOT_SIZE];
    c.flow = 2;
    say(&c, FLAG_ACK, 0);
    const segment s = {.seq = c.seq, .ack = c.ack, .window = 1, .scale = -1, .flags = FLAG_ACK};
    const uint32_t len = segment_write(frame, &c.path, &s);
    frame[len - 1] ^= 1;
    host_receive(2, frame, len);
    host_run();
    HOST_CHECK(tcp_malformed.value == 1 && tcp.connection_count == 1 && host.forgotten == 0);
}

/* A window that opens late says nothing about how long the end lasts. */
static void test_a_window_that_opens_behind_the_end(void) {
    begin("a window that opens behind the end", finish_at_once);
    client c = make_client(1);
    say(&c, FLAG_SYN, 0);
    c.seq++, c.ack = sent[0].segment.seq + 1;
    say(&c, FLAG_ACK, 0);
    c.ack++, c.window = 0;
    say(&c, FLAG_ACK | FLAG_FIN, 0);
    c.seq++, c.window = 60000;
    say(&c, FLAG_ACK, 0);
    HOST_CHECK(ledgers[1].ended && tcp.connection_count == 1);
    wait_ms(TCP_LAST_MS + 1000);
    HOST_CHECK(tcp.connection_count == 0);
}

/* Connections that are over give way, the oldest first. */
static void test_those_that_are_over_give_way(void) {
    begin("those that are over give way", finish_at_once);
    for (uint64_t flow = 1; flow <= EDGEOS_TCP_CONNECTIONS; flow++) {
        client c = make_client(flow);
        say(&c, FLAG_SYN, 0);
        c.seq++, c.ack = sent[0].segment.seq + 1;
        say(&c, FLAG_ACK, 0);
        HOST_CHECK(sent_count == 1 && sent[0].segment.flags & FLAG_FIN);
        c.ack++;
        say(&c, FLAG_ACK | FLAG_FIN, 0);
        HOST_CHECK(ledgers[flow].ended && !host.ended[flow]);
        wait_ms(1);
    }
    HOST_CHECK(tcp.connection_count == EDGEOS_TCP_CONNECTIONS);
    service = sink;
    connect_client(EDGEOS_TCP_CONNECTIONS + 1);
    HOST_CHECK(host.ended[1] == 1 && host.ended[2] == 0 && tcp_refused.value == 0);
}

/* A client that has begun anew from the same port learns so from the answer, and not only when that is repeated. */
static void test_opening_anew(void) {
    begin("opening anew", sink);
    client c = make_client(1);
    say(&c, FLAG_SYN, 0);
    c.seq += 5000;
    say(&c, FLAG_SYN, 0);
    HOST_CHECK(sent_count == 1 && sent[0].segment.flags == (FLAG_SYN | FLAG_ACK) && sent[0].segment.ack == 1001);
    c.seq = 1001;
    say(&c, FLAG_RST, 0);
    HOST_CHECK(tcp.connection_count == 0);
}

/* All have to send again at once, and the host takes so many in a burst only: the others wait, and ask it no more. */
static void test_many_that_are_refused(void) {
    begin("many that are refused", echo);
    for (uint64_t flow = 1; flow <= 100; flow++) {
        client c = connect_client(flow);
        say(&c, FLAG_ACK, 100);
    }
    wait_ms(300);
    HOST_CHECK(sent_count == 100 && host.refused <= 2);
}

/* The host has no timer left for a while. */
static void test_a_timer_that_is_refused(void) {
    begin("a timer that is refused", sink);
    client c = make_client(1);
    host.refuses_timers = true;
    say(&c, FLAG_SYN, 0);
    host.refuses_timers = false;
    client other = connect_client(2);
    (void)other;
    wait_ms(1500);
    HOST_CHECK(sent_count == 1 && sent[0].segment.flags == (FLAG_SYN | FLAG_ACK));
}

int main(void) {
    test_the_byte_that_asked_is_sent_again();
    test_an_end_behind_a_full_window();
    test_closing_what_was_finished_before();
    test_a_bad_packet_under_a_new_number();
    test_a_window_that_opens_behind_the_end();
    test_those_that_are_over_give_way();
    test_opening_anew();
    test_many_that_are_refused();
    test_a_timer_that_is_refused();
    ledgers_clear();
    puts("all passed");
    return 0;
}
