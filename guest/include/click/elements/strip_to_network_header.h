/* StripToNetworkHeader: the packet begins at its network header; one that has none, or whose header is gone, is dropped. */
static click_packet *ME(action)(click_packet *p) {
    const uint8_t *network = p->network;
    bool done = network && network >= p->head;
    if (done && network >= p->data) done = click_strip(p, (uint32_t)(network - p->data));
    if (done && network < p->data) done = click_unstrip(p, (uint32_t)(p->data - network)) != NULL;
    if (done) return p;
    click_drop(p);
    return NULL;
}
