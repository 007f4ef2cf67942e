/* StoreData: overwrites a part of the packet. */
static click_packet *ME(action)(click_packet *p) {
    if (p->len > ARG_OFFSET) {
        const uint32_t room = p->len - ARG_OFFSET;
        __builtin_memcpy(p->data + ARG_OFFSET, ARG_DATA, room < ARG_DATA_LEN ? room : ARG_DATA_LEN);
    }
    return p;
}
