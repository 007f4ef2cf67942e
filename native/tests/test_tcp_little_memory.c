/* test_tcp.c with the least memory that the guest's TCP may have. */
#define EDGEOS_TCP_MEMORY 16384
#define SEEDS 1000u
#include "test_tcp.c"
