/* RoundRobinSwitch: the outputs in turn. */
static struct {
    uint32_t next;
} S;

static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    const uint32_t output = S.next;
    S.next = output + 1 == N_OUTPUTS ? 0 : output + 1;
    OUT(output, p);
}
