/* Truncate: takes away what is too long. */
static click_packet *ME(action)(click_packet *p) {
    if (p->len > ARG_LENGTH) click_take(p, p->len - ARG_LENGTH);
    return p;
}
