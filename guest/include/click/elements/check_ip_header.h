/* CheckIPHeader, CheckIPHeader2: good IP headers pass. Handlers: drops, drop_details (read), reset_counts (write). */
#define PROBLEMS IP_PROBLEMS
#define TEXT_PROBLEMS click_text_ip_problems
#include <click/problems.h>

static click_packet *ME(action)(click_packet *p) {
    const uint32_t problem = click_check_ip(p, ARG_OFFSET, ARG_CHECKSUM, ME(bad_source));
    if (problem == IP_GOOD) return p;
    ME(found)(problem);
    OUT(1, p);
    return NULL;
}
