/* PaintSwitch: the paint annotation is the number of the output. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    OUT(p->paint, p);
}
