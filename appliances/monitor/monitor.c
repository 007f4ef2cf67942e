/* monitor: counts what passes, by direction and protocol, and forwards all of it unchanged. See README.md.
 *
 * Each message counts once under its direction and once under tcp, udp, icmp, other or malformed.
 */
#include <edgeos.h>

#include "../include/packet.h"

EDGEOS_COUNTER(packets_forward);
EDGEOS_COUNTER(bytes_forward);
EDGEOS_COUNTER(packets_reverse);
EDGEOS_COUNTER(bytes_reverse);
EDGEOS_COUNTER(tcp);
EDGEOS_COUNTER(udp);
EDGEOS_COUNTER(icmp);
EDGEOS_COUNTER(other);
EDGEOS_COUNTER(malformed);
EDGEOS_COUNTER(tcp_syn);
EDGEOS_COUNTER(tcp_rst);
EDGEOS_COUNTER(fragments);

static void count_direction(const edgeos_message *m) {
    if (m->direction == EDGEOS_FORWARD) {
        packets_forward.value++;
        bytes_forward.value += m->len;
    } else {
        packets_reverse.value++;
        bytes_reverse.value += m->len;
    }
}

static void count_protocol(const struct packet *p) {
    bool ip4 = p->kind == PACKET_IP4, ip6 = p->kind == PACKET_IP6;
    if (p->kind == PACKET_MALFORMED) {
        malformed.value++;
    } else if ((ip4 || ip6) && p->proto == PROTO_TCP) {
        tcp.value++;
        tcp_syn.value += (p->tcp_flags & TCP_SYN) != 0;
        tcp_rst.value += (p->tcp_flags & TCP_RST) != 0;
    } else if ((ip4 || ip6) && p->proto == PROTO_UDP) {
        udp.value++;
    } else if ((ip4 && p->proto == PROTO_ICMP) || (ip6 && p->proto == PROTO_ICMP6)) {
        icmp.value++;
    } else {
        other.value++;
    }
    fragments.value += p->kind != PACKET_MALFORMED && p->fragment != PACKET_WHOLE;
}

int edgeos_handle(edgeos_message *m) {
    struct packet p;
    packet_parse(&p, m->data, m->len);
    count_direction(m);
    count_protocol(&p);
    return 0;
}
