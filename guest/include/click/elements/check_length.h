/* CheckLength: longer packets leave by output 1. */
static click_packet *ME(action)(click_packet *p) {
    if (p->len <= ARG_LENGTH) return p;
    OUT(1, p);
    return NULL;
}
