/* Tee: copies leave by outputs 0, 1, …, and the packet itself by the last. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    for (uint32_t i = 0; i + 1 < N_OUTPUTS; i++) {
        click_packet *copy = click_copy(p);
        if (copy) OUT(i, copy);
    }
    OUT(N_OUTPUTS - 1, p);
}
