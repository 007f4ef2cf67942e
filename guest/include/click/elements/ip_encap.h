/* IPEncap: an IP header in front. Handlers: src, dst (read). */
#include <click/ip_front.h>

static click_packet *ME(action)(click_packet *p) { return ME(put_ip)(p, 0) ? p : NULL; }
