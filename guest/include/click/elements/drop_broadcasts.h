/* DropBroadcasts: drops what was sent to all or many. Handlers: drops (read), reset_counts (write). */
static struct {
    uint64_t drops;
} S;

static click_packet *ME(action)(click_packet *p) {
    if (p->type != CLICK_BROADCAST && p->type != CLICK_MULTICAST) return p;
    S.drops++;
    click_drop(p);
    return NULL;
}

static void ME(read_drops)(click_text *out) { click_text_unsigned(out, S.drops); }

static bool ME(write_reset_counts)(const char *text, uint32_t len) {
    (void)text, (void)len;
    S.drops = 0;
    return true;
}
