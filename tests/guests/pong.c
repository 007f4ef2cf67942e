/* Stage 0 lets through what comes from the client and sends back the rest; stage 1 sends everything back: a message plays
 * ping-pong between the two until the host ends it. */
#include <edgeos.h>

static uint32_t stage;

void edgeos_init(const uint8_t *config, uint32_t len) { stage = len ? config[0] - '0' : 0; }

int edgeos_handle(edgeos_message *m) { return stage == 0 && m->direction == EDGEOS_FORWARD ? 0 : EDGEOS_BACK; }
