/* table.h: a table of fixed size for what the firewall remembers, found by key with one hash.
 *
 * Sets of four: a key belongs to one set, and a new key in a full set takes the place of the entry seen longest ago.
 * Entries are handed out in order, so a client with few flows touches one page of them, not one page each.
 */
#ifndef EDGEOS_FIREWALL_TABLE_H
#define EDGEOS_FIREWALL_TABLE_H

#include "../include/packet.h"

#define TABLE_WAYS 4

struct table_key {
    struct packet_address near, far; /* the client's side and the other */
    uint64_t what;                   /* protocol with ports, or protocol with fragment id */
    uint64_t where;                  /* IP version and VLANs */
};

struct table_entry {
    struct table_key key;
    uint64_t seen_ns;
    uint32_t header_end; /* of fragments: as in struct packet */
    uint8_t state;       /* of flows: FLOW_ bits; of fragments: the outcome of the first */
};

_Static_assert(sizeof(struct table_entry) == 64, "one entry fills one cache line");

struct table_way {
    uint16_t tag;   /* 16 bits of the hash, so that other keys' entries are rarely looked at */
    uint16_t entry; /* index + 1; 0 = free */
};

struct table {
    struct table_way (*sets)[TABLE_WAYS];
    struct table_entry *entries;
    uint32_t set_count; /* a power of two */
    uint32_t used;      /* entries handed out */
};

#define TABLE(name, count)                                                                                   \
    static struct table_way name##_sets[(count)][TABLE_WAYS];                                                \
    static _Alignas(64) struct table_entry name##_entries[(count) * TABLE_WAYS];                             \
    static struct table name = {name##_sets, name##_entries, (count), 0}

/* A sum of products, mixed until addresses and ports in sequence fill all sets alike. */
static inline uint64_t table_hash(const struct table_key *k) {
    uint64_t h = k->near.high * 0x9e3779b97f4a7c15 + k->near.low * 0xc2b2ae3d27d4eb4f +
                 k->far.high * 0x165667b19e3779f9 + k->far.low * 0xd6e8feb86659fd93 +
                 k->what * 0xff51afd7ed558ccd + k->where * 0xa0761d6478bd642f;
    h ^= h >> 32;
    h *= 0xc4ceb9fe1a85ec53;
    h ^= h >> 29;
    h *= 0x9fb21c651e98df25;
    return h ^ h >> 32;
}

static inline bool table_key_equal(const struct table_key *a, const struct table_key *b) {
    return packet_address_equal(a->near, b->near) && packet_address_equal(a->far, b->far) && a->what == b->what &&
           a->where == b->where;
}

static inline struct table_way *table_set(const struct table *t, uint64_t hash) {
    return t->sets[hash & (t->set_count - 1)];
}

static inline struct table_entry *table_find(const struct table *t, const struct table_key *key, uint64_t hash) {
    const struct table_way *set = table_set(t, hash);
    for (int i = 0; i < TABLE_WAYS; i++) {
        if (set[i].entry == 0 || set[i].tag != (uint16_t)(hash >> 48)) continue;
        struct table_entry *entry = &t->entries[set[i].entry - 1];
        if (table_key_equal(&entry->key, key)) return entry;
    }
    return 0;
}

/* A place for a key that table_find() did not find; the caller sets everything else in it. */
static inline struct table_entry *table_add(struct table *t, const struct table_key *key, uint64_t hash) {
    struct table_way *set = table_set(t, hash), *chosen = set;
    for (struct table_way *way = set; way < set + TABLE_WAYS; way++) {
        if (way->entry == 0) {
            way->entry = (uint16_t)++t->used;
            chosen = way;
            break;
        }
        if (t->entries[way->entry - 1].seen_ns < t->entries[chosen->entry - 1].seen_ns) chosen = way;
    }
    chosen->tag = (uint16_t)(hash >> 48);
    struct table_entry *entry = &t->entries[chosen->entry - 1];
    entry->key = *key;
    return entry;
}

#endif /* EDGEOS_FIREWALL_TABLE_H */
