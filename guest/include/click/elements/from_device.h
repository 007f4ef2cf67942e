/* FromDevice, FromRing: packets that came in at one in port go out of output 0. */
static inline void ME(receive)(click_packet *p) { OUT(0, p); }
