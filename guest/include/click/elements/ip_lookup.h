/* StaticIPLookup, LinearIPLookup, RadixIPLookup: the longest prefix, as ME(search) finds it among ME(routes). Where CHANGES
 * are allowed and one has been made, the routes are a list in memory that is gone through.
 * Handlers: table (read); add, set, remove, ctrl (write). */
#if CHANGES
static struct {
    bool changed;
    uint32_t count;
    click_route routes[ROUTES + CHANGES];
} S;

static const click_route *ME(find)(uint32_t address) {
    const click_route *best = NULL;
    for (uint32_t i = 0; i < S.count; i++) {
        const click_route *r = &S.routes[i];
        if ((address & r->mask) == r->address && (!best || click_mask_bits(r->mask) > click_mask_bits(best->mask))) best = r;
    }
    return best;
}
#endif

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    const click_route *route;
#if CHANGES
    if (S.changed) {
        route = ME(find)(p->dst_ip);
    } else
#endif
    {
        const uint32_t index = ME(search)(p->dst_ip);
        route = index == CLICK_NO_ROUTE ? NULL : &ME(routes)[index];
    }
    if (!route) {
        click_drop(p);
        return;
    }
    if (route->gateway) p->dst_ip = route->gateway;
    OUT(route->output, p);
}

static void ME(read_table)(click_text *out) {
#if CHANGES
    for (uint32_t i = 0; S.changed && i < S.count; i++) click_text_route(out, &S.routes[i]);
    if (S.changed) return;
#endif
    for (uint32_t i = 0; i < ROUTES; i++) click_text_route(out, &ME(routes)[i]);
}

#if CHANGES
static click_route *ME(same)(const click_route *as) {
    for (uint32_t i = 0; i < S.count; i++) {
        if (S.routes[i].address == as->address && S.routes[i].mask == as->mask) return &S.routes[i];
    }
    return NULL;
}

static void ME(change)(void) {
    if (S.changed) return;
    S.changed = true;
    S.count = ROUTES;
    __builtin_memcpy(S.routes, ME(routes), sizeof ME(routes));
}

static bool ME(put)(const char *text, uint32_t len, bool over) {
    click_route route;
    if (!click_parse_route(text, len, true, &route) || route.output >= N_OUTPUTS) return false;
    ME(change)();
    click_route *old = ME(same)(&route);
    if (old ? !over : S.count == ROUTES + CHANGES) return false;
    *(old ? old : &S.routes[S.count++]) = route;
    return true;
}

static bool ME(write_add)(const char *text, uint32_t len) { return ME(put)(text, len, false); }
static bool ME(write_set)(const char *text, uint32_t len) { return ME(put)(text, len, true); }

static bool ME(write_remove)(const char *text, uint32_t len) {
    click_route route;
    if (!click_parse_route(text, len, false, &route)) return false;
    ME(change)();
    click_route *old = ME(same)(&route);
    if (!old) return false;
    *old = S.routes[--S.count];
    return true;
}

static bool ME(command)(const char *text, uint32_t len) {
    click_word word = click_next_word(&text, &len);
    if (word.len == 0) return true;
    if (click_text_is(word.text, word.len, "add")) return ME(write_add)(text, len);
    if (click_text_is(word.text, word.len, "set")) return ME(write_set)(text, len);
    if (click_text_is(word.text, word.len, "remove")) return ME(write_remove)(text, len);
    return false;
}

/* A command a line: all of them, or none. */
static bool ME(write_ctrl)(const char *text, uint32_t len) {
    const bool changed = S.changed;
    static click_route before[ROUTES + CHANGES];
    const uint32_t count = S.count;
    if (changed) __builtin_memcpy(before, S.routes, sizeof before);
    while (len) {
        uint32_t line = 0;
        while (line < len && text[line] != '\n') line++;
        if (!ME(command)(text, line)) {
            S.changed = changed;
            S.count = count;
            if (changed) __builtin_memcpy(S.routes, before, sizeof before);
            return false;
        }
        text += line < len ? line + 1 : line;
        len -= line < len ? line + 1 : line;
    }
    return true;
}
#endif
