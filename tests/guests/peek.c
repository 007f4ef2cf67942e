/* Shows its memory: a UDP packet whose payload starts with "PEEK" and an address (u32) is answered by up to 16 messages back, each the
 * next 2,048 bytes from there on as far as the memory goes, and dropped. Other packets are forwarded. */
#include <edgeos.h>

int edgeos_handle(edgeos_message *m) {
    uint32_t at;
    if (m->len < 50 || __builtin_memcmp(m->data + 42, "PEEK", 4)) return 0;
    __builtin_memcpy(&at, m->data + 46, 4);
    for (int i = 0; i < 16; i++, at += 2048) edgeos_emit(EDGEOS_BACK, (const void *)(uintptr_t)at, 2048);
    return EDGEOS_DROP;
}
