/* Relays each connection to one of several upstreams, chosen by the client's address and port; when it cannot be reached, the
 * next one is tried. Its configuration is how many there are, a digit. Runs with one FWP for each connection.
 *
 * What one end does not take yet is kept; the node reads no more from the other end until there is room again, so what is kept
 * is at most what was on its way already. */
#include <edgeos.h>
#include <string.h>

enum { KEPT_MAX = 160 << 10 };

EDGEOS_COUNTER(relayed_bytes);
EDGEOS_COUNTER(next_tried);
EDGEOS_COUNTER(given_up);

struct end {
    uint64_t flow;
    uint32_t kept;  /* bytes from this end that the other has not taken */
    int finished;   /* it sends no more */
    int gone;       /* it is closed */
    uint8_t bytes[KEPT_MAX];
};

static struct end client, upstream;
static uint32_t upstreams = 1, chosen, tries;
static int reached; /* an upstream */

void edgeos_init(const uint8_t *config, uint32_t len) {
    if (len != 1 || config[0] < '1' || config[0] > '9') edgeos_fail("the configuration is the number of upstreams, 1 to 9");
    upstreams = config[0] - '0';
}

static void connect_to_one(void) {
    while (tries < upstreams) {
        const int64_t flow = edgeos_connect((chosen + tries++) % upstreams);
        if (flow < 0) continue;
        upstream.flow = (uint64_t)flow;
        client.finished = client.finished != 0; /* of this one it has to be said yet */
        return;
    }
    given_up.value++;
    upstream.gone = 1;
    edgeos_close(client.flow);
}

static void pass_on(struct end *from, struct end *to) {
    if (from->kept > 0 && !to->gone) {
        const int32_t taken = edgeos_send(to->flow, from->bytes, from->kept);
        if (taken > 0) {
            relayed_bytes.value += (uint32_t)taken;
            from->kept -= (uint32_t)taken;
            memmove(from->bytes, from->bytes + taken, from->kept);
        }
    }
    if (from->kept > 0 || to->gone) return;
    if (from->gone) {
        edgeos_close(to->flow);
        to->gone = 1;
    } else if (from->finished == 1 && edgeos_finish(to->flow) == 0) {
        from->finished = 2;
    }
}

static void keep(struct end *from, const uint8_t *data, uint32_t len) {
    if (from->kept + len > KEPT_MAX) __builtin_trap();
    memcpy(from->bytes + from->kept, data, len);
    from->kept += len;
}

int edgeos_handle(edgeos_message *m) {
    if (m->kind == EDGEOS_OPEN && m->direction != EDGEOS_UPSTREAM) {
        edgeos_endpoints ends;
        memcpy(&ends, m->data, sizeof ends);
        client.flow = m->flow;
        uint32_t address;
        memcpy(&address, ends.peer + 12, sizeof address);
        chosen = (address + ends.peer_port) * 2654435761u >> 16;
        connect_to_one();
        return EDGEOS_DONE;
    }
    struct end *from = m->direction == EDGEOS_UPSTREAM ? &upstream : &client, *to = from == &client ? &upstream : &client;
    if (m->flow != from->flow) return EDGEOS_DONE; /* an upstream that was given up */
    switch (m->kind) {
    case EDGEOS_OPEN:
        reached = 1;
        pass_on(&client, &upstream);
        return EDGEOS_DONE;
    case EDGEOS_DATA: keep(from, m->data, m->len); break;
    case EDGEOS_HALF_CLOSED: from->finished = 1; break;
    case EDGEOS_ROOM: pass_on(to, from); return EDGEOS_DONE;
    case EDGEOS_CLOSED:
        if (from == &upstream && !reached) {
            next_tried.value += tries < upstreams;
            connect_to_one();
            return EDGEOS_DONE;
        }
        from->gone = 1;
        break;
    default: break;
    }
    pass_on(from, to);
    return EDGEOS_DONE;
}
