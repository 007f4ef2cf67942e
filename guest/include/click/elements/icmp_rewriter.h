/* ICMPRewriter: errors about translated packets become errors about those that there were before; ME(find) asks the
 * rewriters. Handler: count (read). */
static struct {
    uint64_t rewritten;
} S;

static click_packet *ME(action)(click_packet *p) {
    click_quoted quoted;
    click_nat *nat = NULL;
    const uint32_t key = click_quote(p, &quoted) ? ME(find)(&quoted, &nat) : 0;
    if (!key) {
        OUT(1, p);
        return NULL;
    }
    S.rewritten++;
    click_rewrite_quoted(p, &quoted, &nat->mappings[(key - 1) / 2], (key - 1) & 1, ARG_DST_ANNO);
    return p;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.rewritten); }
