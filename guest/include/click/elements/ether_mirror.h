/* EtherMirror: swaps the two addresses; a packet without an Ethernet header is dropped. */
static click_packet *ME(action)(click_packet *p) {
    if (p->len < ETHER_HEADER) {
        click_drop(p);
        return NULL;
    }
    uint8_t to[ETHER_ADDRESS];
    __builtin_memcpy(to, p->data, sizeof to);
    __builtin_memcpy(p->data, p->data + ETHER_SOURCE, sizeof to);
    __builtin_memcpy(p->data + ETHER_SOURCE, to, sizeof to);
    return p;
}
