/* ARPResponder: turns an ARP request into its answer; ME(find) gives the Ethernet address for one of IP.
 * Handlers: table, count (read). */
static struct {
    uint64_t answers;
} S;

static click_packet *ME(action)(click_packet *p) {
    const uint8_t *ether = click_is_arp(p, ARP_REQUEST) ? ME(find)(click_raw32(p->data + ARP_TARGET)) : NULL;
    if (!ether) {
        OUT(1, p);
        return NULL;
    }
    uint8_t *arp = p->data;
    const uint32_t wanted = click_raw32(arp + ARP_TARGET);
    click_put_ether(arp, arp + ETHER_SOURCE, ether, ETHER_ARP);
    click_put16(arp + ARP_OPERATION, ARP_REPLY);
    __builtin_memcpy(arp + ARP_TARGET_ETHER, arp + ARP_SENDER_ETHER, ETHER_ADDRESS + 4);
    __builtin_memcpy(arp + ARP_SENDER_ETHER, ether, ETHER_ADDRESS);
    click_put_raw32(arp + ARP_SENDER, wanted);
    S.answers++;
    return p;
}

static void ME(read_count)(click_text *out) { click_text_unsigned(out, S.answers); }
