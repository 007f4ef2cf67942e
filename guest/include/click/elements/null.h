/* Null: passes packets on. */
static click_packet *ME(action)(click_packet *p) { return p; }
