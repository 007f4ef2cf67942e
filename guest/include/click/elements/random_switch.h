/* RandomSwitch: an output by chance. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    OUT(click_random() % N_OUTPUTS, p);
}
