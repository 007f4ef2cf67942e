/* ethernet.h: Ethernet headers and ARP packets in them, by their offsets. Keeps no state. */
#ifndef CLICK_ETHERNET_H
#define CLICK_ETHERNET_H

#include <click/bytes.h>
#include <click/packet.h>

enum { ETHER_SOURCE = 6, ETHER_TYPE = 12, ETHER_HEADER = 14, ETHER_ADDRESS = 6 };
enum { ARP_PACKET = 42, ARP_OPERATION = 20, ARP_SENDER_ETHER = 22, ARP_SENDER = 28, ARP_TARGET_ETHER = 32, ARP_TARGET = 38 };
enum { ARP_REQUEST = 1, ARP_REPLY = 2 };

#define ETHER_IP 0x0800u
#define ETHER_ARP 0x0806u
#define ETHER_VLAN 0x8100u

static inline void click_put_ether(uint8_t *header, const void *to, const void *from, uint16_t type) {
    __builtin_memcpy(header, to, ETHER_ADDRESS);
    __builtin_memcpy(header + ETHER_SOURCE, from, ETHER_ADDRESS);
    click_put16(header + ETHER_TYPE, type);
}

/* Whether this is a whole ARP packet for IPv4 over Ethernet, of this operation. */
static inline bool click_is_arp(const click_packet *p, uint16_t operation) {
    static const uint8_t fixed[8] = {8, 6, 0, 1, 8, 0, 6, 4};
    return p->len >= ARP_PACKET && __builtin_memcmp(p->data + ETHER_TYPE, fixed, sizeof fixed) == 0 &&
           click_get16(p->data + ARP_OPERATION) == operation;
}

#endif /* CLICK_ETHERNET_H */
