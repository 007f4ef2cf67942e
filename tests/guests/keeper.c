/* Keeps what its client sends wherever it can, and looks for what another client left: the last byte of each message
 * becomes the number of places, this message aside, where its whole memory holds a "SECRET". A recycled FWP finds none in
 * its first message. */
#include <edgeos.h>

#define ROOM 4096

static uint8_t kept[ROOM];
static uint64_t word;
static const uint8_t disguised[6] = {'S' ^ 1, 'E' ^ 1, 'C' ^ 1, 'R' ^ 1, 'E' ^ 1, 'T' ^ 1};

static int is_secret(const uint8_t *p) {
    for (int i = 0; i < 6; i++)
        if (p[i] != (disguised[i] ^ 1)) return 0;
    return 1;
}

static uint32_t memory_end(void) { return (uint32_t)__builtin_wasm_memory_size(0) * 65536; }

static uint32_t find_secrets(const edgeos_message *m) {
    uint32_t found = word != 0;
    for (uint32_t at = 16; at + 6 <= memory_end(); at++) {
        const uint8_t *p = (const uint8_t *)(uintptr_t)at;
        if (*p == 'S' && (p + 6 <= m->data || p >= m->data + m->len) && is_secret(p)) found++;
    }
    return found;
}

static void keep(const edgeos_message *m, uint8_t *to, uint32_t room) {
    for (uint32_t i = 0; i < room; i++) to[i] = m->data[42 + i % (m->len - 42)];
}

int edgeos_handle(edgeos_message *m) {
    if (m->len < 50) return 0;
    const uint32_t found = find_secrets(m);
    keep(m, kept, ROOM);
    word = 1;
    if (memory_end() < 0x80000 && __builtin_wasm_memory_grow(0, 1) != (size_t)-1)
        keep(m, (uint8_t *)(uintptr_t)(memory_end() - 65536), 65536);
    m->data[m->len - 1] = (uint8_t)(found > 255 ? 255 : found);
    return 0;
}
