/* main.h: one burst. Messages go to their sources, then tasks run, then what is still held leaves its slot. */
#ifndef CLICK_MAIN_H
#define CLICK_MAIN_H

static inline uint8_t click_type(const click_packet *p) {
    static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};
    if (p->len < 6 || !(p->data[0] & 1)) return CLICK_HOST;
    return __builtin_memcmp(p->data, everyone, 6) == 0 ? CLICK_BROADCAST : CLICK_MULTICAST;
}

static inline void click_fill(click_packet *p, const edgeos_message *m, uint32_t slot) {
    p->data = m->data;
    p->len = m->len;
    p->head = m->data - EDGEOS_HEADROOM;
    p->end = m->data + EDGEOS_SLOT_SIZE;
    p->network = p->transport = NULL;
    p->next = NULL;
    p->time_ns = m->time_ns;
    p->flow = m->flow;
    p->dst_ip = p->aggregate = 0;
    p->slot = (uint16_t)slot;
    p->vlan_tci = 0;
    p->paint = p->fix_src = p->problem = 0;
    p->device = m->port;
    p->direction = m->direction;
    p->type = click_type(p);
}

static inline void click_packet_in(uint32_t slot, edgeos_message *m) {
#if CLICK_HOLDS
    click_packet *p = click_take_free();
    if (!p) {
        no_buffer.value++;
        edgeos_verdicts[slot] = EDGEOS_DROP;
        return;
    }
    click_arrived[slot - click_first] = p;
    edgeos_verdicts[slot] = EDGEOS_DONE; /* unless it leaves, or is dropped, within the burst */
#else
    click_packet arrived, *p = &arrived;
    edgeos_verdicts[slot] = EDGEOS_DROP;
#endif
    click_fill(p, m, slot);
    click_receive(p);
}

#if CLICK_HOLDS
/* Packets that are held when the burst ends leave their slots, which belong to the host again. */
static void click_vacate(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        click_packet *p = click_arrived[i];
        if (!p) continue;
        const click_packet before = *p;
        click_use_buffer(p);
        p->network = click_moved(&before, p, before.network);
        p->transport = click_moved(&before, p, before.transport);
        click_expose_packet(p);
        __builtin_memcpy(p->data, before.data, p->len);
        click_arrived[i] = NULL;
    }
}
#endif

#if CLICK_TIMERS
#define CLICK_AGAIN_NS 1000000u /* tasks that were not done at the end of a burst go on after so long */

static uint64_t click_alarm = CLICK_NEVER; /* when the host's timer comes */

static void click_set_alarm(bool again) {
    uint64_t next = click_next_due();
    if (again && click_now + CLICK_AGAIN_NS < next) next = click_now + CLICK_AGAIN_NS;
    if (next == click_alarm) return;
    click_alarm = next;
    edgeos_timer(next == CLICK_NEVER ? CLICK_NEVER : next > click_now ? next - click_now : 0, 0);
}
#endif

static void click_burst(uint32_t first, uint32_t count) {
    click_first = click_floor = first;
    click_last = first + count - 1;
    for (uint32_t slot = first; slot < first + count; slot++) {
        edgeos_message *m = &edgeos_messages[slot];
        edgeos_current = slot;
        if (m->time_ns > click_now) click_now = m->time_ns;
#if CLICK_TIMERS
        click_timers();
        if (m->kind == EDGEOS_TIMER) {
            edgeos_verdicts[slot] = EDGEOS_DONE;
            click_alarm = CLICK_NEVER;
            continue;
        }
#endif
        if (m->kind == EDGEOS_PACKET) {
            click_packet_in(slot, m);
        } else {
            edgeos_verdicts[slot] = EDGEOS_DROP;
        }
    }
    bool again = false;
    for (uint32_t round = 0; round < CLICK_ROUNDS && (again = click_tasks()); round++) {}
#if CLICK_HOLDS
    click_vacate(count);
#endif
#if CLICK_TIMERS
    click_set_alarm(again);
#else
    (void)again;
#endif
}

void edgeos_burst(uint32_t first, uint32_t count) {
    for (; count > CLICK_BURST; first += CLICK_BURST, count -= CLICK_BURST) click_burst(first, CLICK_BURST);
    if (count) click_burst(first, count);
}

void edgeos_init(const uint8_t *config, uint32_t len) {
    (void)config;
#ifndef EDGEOS_HOST_TEST
    if (len) edgeos_fail("a Click configuration takes no other configuration; use define and $variables");
#else
    (void)len;
#endif
#if CLICK_POOL
    click_pool_init();
#endif
    click_start();
}

#endif /* CLICK_MAIN_H */
