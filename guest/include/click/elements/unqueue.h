/* Unqueue: pulls and pushes, ARG_BURST packets a turn (-1: all), ARG_LIMIT in all (-1: no limit).
 * Handlers: count, active (read); active, reset (write). */
static struct {
    uint64_t packets;
    bool stopped;
} S = {0, !ARG_ACTIVE};

static bool ME(task)(void) {
    uint32_t moved = 0;
    while (!S.stopped && moved < (uint32_t)ARG_BURST && (ARG_LIMIT < 0 || S.packets < (uint64_t)ARG_LIMIT)) {
        click_packet *p = IN(0);
        if (!p) break;
        moved++;
        S.packets++;
        OUT(0, p);
    }
    return moved != 0;
}

#include <click/switch.h>

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.packets = 0;
    return true;
}
