/* Align: moves a packet within its room so that its address fits. */
static click_packet *ME(action)(click_packet *p) {
    const uintptr_t off = ((uintptr_t)p->data + ARG_MODULUS - ARG_OFFSET) % ARG_MODULUS;
    if (off == 0) return p;
    if (click_headroom(p) >= off) {
        click_move(p, p->data - off);
    } else if (click_tailroom(p) >= ARG_MODULUS - off) {
        click_move(p, p->data + (ARG_MODULUS - off));
    } else {
        click_drop(p);
        return NULL;
    }
    return p;
}
