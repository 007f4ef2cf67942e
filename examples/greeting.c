/* A service that speaks first: it greets a client, asks for a name, answers and closes. It counts the visits of its client,
 * and of nobody else: each client address has an FWP of its own. Who says nothing for the seconds in the configuration is
 * sent away, which needs the grant of timers. */
#include <edgeos.h>
#include <string.h>

#define GUESTS 64  /* connections of one client at a time */
#define NAME_MAX 40

typedef struct {
    uint64_t flow; /* 0: free */
    uint32_t len;
    char name[NAME_MAX];
} guest;

EDGEOS_COUNTER(visits);
EDGEOS_COUNTER(sent_away);

static guest guests[GUESTS];
static uint64_t patience_ns;

void edgeos_init(const uint8_t *config, uint32_t len) {
    uint64_t seconds = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (config[i] < '0' || config[i] > '9' || seconds > 86400) edgeos_fail("the configuration is a number of seconds, up to a day");
        seconds = seconds * 10 + config[i] - '0';
    }
    if (seconds == 0) edgeos_fail("the configuration is a number of seconds, such as \"20\"");
    patience_ns = seconds * 1000000000u;
}

static guest *find(uint64_t flow) {
    for (int i = 0; i < GUESTS; i++)
        if (guests[i].flow == flow) return &guests[i];
    return NULL;
}

static void say(uint64_t flow, const char *words) { edgeos_send(flow, words, (uint32_t)strlen(words)); }

static void say_number(uint64_t flow, uint64_t number) {
    char digits[21];
    int at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    edgeos_send(flow, digits + at, sizeof digits - (uint32_t)at);
}

static void leave(guest *g, const char *words) {
    say(g->flow, words);
    edgeos_close(g->flow);
    edgeos_timer(UINT64_MAX, g->flow);
    g->flow = 0;
}

static void welcome(uint64_t flow) {
    guest *g = find(0);
    if (g == NULL) {
        say(flow, "You are here too often at a time.\r\n");
        edgeos_close(flow);
        return;
    }
    g->flow = flow;
    g->len = 0;
    visits.value++;
    say(flow, "Welcome. This is your visit number ");
    say_number(flow, visits.value);
    say(flow, ". What is your name?\r\n");
    edgeos_timer(patience_ns, flow);
}

/* Takes the bytes of a name up to the end of the line. */
static void listen(guest *g, const uint8_t *data, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        if (data[i] == '\n') {
            say(g->flow, "Hello, ");
            edgeos_send(g->flow, g->name, g->len);
            leave(g, ".\r\n");
            return;
        }
        if (data[i] >= ' ' && data[i] < 127 && g->len < NAME_MAX) g->name[g->len++] = (char)data[i];
    }
}

int edgeos_handle(edgeos_message *m) {
    uint64_t flow = m->flow;
    if (m->kind == EDGEOS_TIMER) memcpy(&flow, m->data, sizeof flow);
    guest *g = flow ? find(flow) : NULL;
    if (m->kind == EDGEOS_OPEN) welcome(flow);
    if (g == NULL) return EDGEOS_DONE;
    if (m->kind == EDGEOS_DATA) listen(g, m->data, m->len);
    if (m->kind == EDGEOS_HALF_CLOSED) leave(g, "Good bye.\r\n");
    if (m->kind == EDGEOS_TIMER) {
        sent_away.value++;
        leave(g, "Good bye, then.\r\n");
    }
    if (m->kind == EDGEOS_CLOSED) {
        edgeos_timer(UINT64_MAX, flow);
        g->flow = 0;
    }
    return EDGEOS_DONE;
}
