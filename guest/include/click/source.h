/* source.h: what all sources have, included by their templates for each instance: their state, ME(make), and the handlers
 * count, limit, active (read), limit, active, reset (write). CONTENT is a packet's bytes; SOURCE_STATE what is the element's
 * own of the state, SOURCE_START its values. */
static struct {
    uint64_t packets;
    int64_t limit;
    bool stopped;
    SOURCE_STATE
} S = {.limit = ARG_LIMIT, .stopped = !ARG_ACTIVE, SOURCE_START};

static bool ME(may_make)(void) { return !S.stopped && (S.limit < 0 || S.packets < (uint64_t)S.limit); }

static click_packet *ME(make)(void) {
    click_packet *p = click_new(CONTENT_LEN);
    if (!p) return NULL;
    __builtin_memcpy(p->data, CONTENT, CONTENT_LEN);
    S.packets++;
    return p;
}

#include <click/switch.h>

static void ME(read_limit)(click_text *out) { click_text_signed(out, S.limit); }

static bool ME(write_limit)(const char *text, uint32_t len) { return click_parse_signed(text, len, &S.limit); }

static bool ME(write_reset)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.packets = 0;
    return true;
}
#undef SOURCE_STATE
#undef SOURCE_START
