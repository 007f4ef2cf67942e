/* CheckUDPHeader, CheckTCPHeader, CheckICMPHeader: packets for which CHECK finds no problem pass.
 * Handlers: drops, drop_details (read), reset_counts (write). */
#define PROBLEMS TRANSPORT_PROBLEMS
#define TEXT_PROBLEMS click_text_transport_problems
#include <click/problems.h>

static click_packet *ME(action)(click_packet *p) {
    const uint32_t problem = CHECK(p);
    if (problem == TRANSPORT_GOOD) return p;
    ME(found)(problem);
    OUT(1, p);
    return NULL;
}
