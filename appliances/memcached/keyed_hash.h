/* keyed_hash.h: SipHash-1-3 under a key of this cache's own (Aumasson and Bernstein, 2012).
 *
 * Clients choose the keys of items. Who does not know the key of the hash cannot choose keys that meet in one bucket, and so
 * make look-ups slow for others that share the cache. The key is drawn when the first message comes: in init it would be
 * part of the checkpoint, and the same for every client.
 */
#ifndef MEMCACHED_KEYED_HASH_H
#define MEMCACHED_KEYED_HASH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static struct {
    uint64_t words[2];
    bool drawn;
} hash_key;

static void hash_key_draw(void) {
    if (hash_key.drawn) return;
    hash_key.drawn = edgeos_random(hash_key.words, sizeof hash_key.words) == 0;
}

struct sip {
    uint64_t a, b, c, d;
};

static inline uint64_t turn(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static inline void sip_round(struct sip *s) {
    s->a += s->b;
    s->c += s->d;
    s->b = turn(s->b, 13) ^ s->a;
    s->d = turn(s->d, 16) ^ s->c;
    s->a = turn(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = turn(s->b, 17) ^ s->c;
    s->d = turn(s->d, 21) ^ s->a;
    s->c = turn(s->c, 32);
}

static uint32_t hash_of(const uint8_t *key, uint32_t len) {
    const uint64_t low = hash_key.words[0], high = hash_key.words[1];
    struct sip s = {low ^ 0x736f6d6570736575u, high ^ 0x646f72616e646f6du, low ^ 0x6c7967656e657261u,
                    high ^ 0x7465646279746573u};
    uint64_t word;
    uint32_t at = 0;
    for (; at + 8 <= len; at += 8) {
        memcpy(&word, key + at, 8);
        s.d ^= word;
        sip_round(&s);
        s.a ^= word;
    }
    word = (uint64_t)len << 56;
    for (uint32_t i = 0; at + i < len; i++) word |= (uint64_t)key[at + i] << 8 * i;
    s.d ^= word;
    sip_round(&s);
    s.a ^= word;
    s.c ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(&s);
    const uint64_t hash = s.a ^ s.b ^ s.c ^ s.d;
    return (uint32_t)(hash ^ hash >> 32);
}

#endif
