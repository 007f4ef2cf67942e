/* PaintTee: a copy of packets of one paint leaves by output 1. */
static click_packet *ME(action)(click_packet *p) {
    if (p->paint == ARG_COLOR) {
        click_packet *copy = click_copy(p);
        if (copy) OUT(1, copy);
    }
    return p;
}
