/* Strip: removes bytes in front. */
static click_packet *ME(action)(click_packet *p) {
    if (!click_strip(p, ARG_LENGTH)) click_strip(p, p->len);
    return p;
}
