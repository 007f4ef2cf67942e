/* Paint: sets the paint annotation. */
static click_packet *ME(action)(click_packet *p) {
    p->paint = ARG_COLOR;
    return p;
}
