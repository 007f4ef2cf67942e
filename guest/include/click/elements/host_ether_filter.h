/* HostEtherFilter: what a device with the address ARG_ETHER takes, and the packet type annotation. */
static click_packet *ME(action)(click_packet *p) {
    bool wanted = false;
    if (p->len >= ARG_OFFSET + ETHER_HEADER) {
        static const uint8_t everyone[ETHER_ADDRESS] = {255, 255, 255, 255, 255, 255};
        const uint8_t *header = p->data + ARG_OFFSET;
        if (header[0] & 1) {
            p->type = __builtin_memcmp(header, everyone, ETHER_ADDRESS) == 0 ? CLICK_BROADCAST : CLICK_MULTICAST;
        } else {
            p->type = __builtin_memcmp(header, ARG_ETHER, ETHER_ADDRESS) == 0 ? CLICK_HOST : CLICK_OTHERHOST;
        }
        wanted = !(ARG_DROP_OTHER && p->type == CLICK_OTHERHOST) &&
                 !(ARG_DROP_OWN && __builtin_memcmp(header + ETHER_SOURCE, ARG_ETHER, ETHER_ADDRESS) == 0);
    }
    if (wanted) return p;
    OUT(1, p);
    return NULL;
}
