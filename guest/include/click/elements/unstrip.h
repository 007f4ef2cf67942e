/* Unstrip: puts bytes back in front. */
static click_packet *ME(action)(click_packet *p) {
    if (click_unstrip(p, ARG_LENGTH)) return p;
    click_drop(p);
    return NULL;
}
