/* MarkIPHeader: the header annotations, where the bytes for a header are there. */
static click_packet *ME(action)(click_packet *p) {
    if (p->len < ARG_OFFSET + IP_HEADER) {
        p->network = p->transport = NULL;
    } else {
        click_set_ip(p, p->data + ARG_OFFSET);
    }
    return p;
}
