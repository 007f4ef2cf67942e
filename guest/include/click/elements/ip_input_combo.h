/* IPInputCombo: paint, no Ethernet header, a good IP header. Handlers: drops, drop_details (read), reset_counts (write). */
#define PROBLEMS IP_PROBLEMS
#define TEXT_PROBLEMS click_text_ip_problems
#include <click/problems.h>

static click_packet *ME(action)(click_packet *p) {
    p->paint = ARG_COLOR;
    const uint32_t problem = click_strip(p, ETHER_HEADER) ? click_check_ip(p, 0, ARG_CHECKSUM, ME(bad_source)) : IP_TINY;
    if (problem == IP_GOOD) return p;
    ME(found)(problem);
    click_drop(p);
    return NULL;
}
