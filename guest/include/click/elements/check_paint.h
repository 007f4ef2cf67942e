/* CheckPaint: lets packets of one paint through; others leave by output 1. */
static click_packet *ME(action)(click_packet *p) {
    if (p->paint == ARG_COLOR) return p;
    OUT(1, p);
    return NULL;
}
