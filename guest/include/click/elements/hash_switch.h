/* HashSwitch: FNV-1a over the chosen bytes. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    uint32_t hash = 2166136261u;
    if (p->len >= ARG_OFFSET && p->len - ARG_OFFSET >= ARG_LENGTH) {
        for (uint32_t i = 0; i < ARG_LENGTH; i++) hash = (hash ^ p->data[ARG_OFFSET + i]) * 16777619u;
        hash ^= hash >> 16;
    } else {
        hash = 0;
    }
    OUT(hash % N_OUTPUTS, p);
}
