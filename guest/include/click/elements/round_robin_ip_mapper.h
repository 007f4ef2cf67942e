/* RoundRobinIPMapper: the place of a rewriter's next pattern. A request that tries on takes the ones behind it. */
static struct {
    uint32_t next;
} S;

static uint32_t ME(choose)(uint32_t saddr, uint32_t attempt) {
    (void)saddr, (void)attempt;
    const uint32_t place = S.next;
    S.next = place + 1 == PATTERNS ? 0 : place + 1;
    return place;
}
