/* Idle: gives nothing, and drops what it gets. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    click_drop(p);
}

static click_packet *ME(pull)(uint32_t port) {
    (void)port;
    return NULL;
}
