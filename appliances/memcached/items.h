/* items.h: the cache itself: items by key in a hash table, by use in a list, with expiry, CAS numbers and eviction.
 *
 * A value is kept with the CR LF that follows it on the wire. An item lives while it is linked (found by its key) or
 * referred to (being filled, or waiting to be sent). The table doubles as items come, moving a few buckets at each
 * look-up,
 * so that no command waits for all of it.
 */
#ifndef MEMCACHED_ITEMS_H
#define MEMCACHED_ITEMS_H

#include "arena.h"
#include "keyed_hash.h"
#include "numbers.h"

#define KEY_MAX 250
#define RELATIVE_MAX (60 * 60 * 24 * 30) /* seconds; a larger expiry is a time since 1970 */
#define FIRST_BUCKETS 32u
#define MOVED_AT_ONCE 8u /* buckets of the old table, at each look-up */
#define REFERENCES_MAX 60000

enum { MARK_LINKED = 1, MARK_FETCHED = 2, MARK_ACTIVE = 4, MARK_STALE = 8, MARK_TOKEN_SENT = 16, MARK_BINARY_KEY = 32 };

struct item {
    struct item *chain; /* the next of its bucket */
    struct item *newer, *older;
    uint32_t expires; /* in the seconds of `now`; 0 = never */
    uint64_t cas;
    uint32_t used_at;
    uint32_t client_flags;
    uint32_t value_len; /* with CR LF */
    uint32_t hash;
    uint16_t references; /* one of them while linked */
    uint8_t marks;
    uint8_t key_len;
    uint8_t bytes[]; /* the key, the value */
};

/* What clients can ask for; `stats reset` clears these alone. */
static struct {
    uint64_t bytes_read, bytes_written, get_hits, get_misses, sets, touches, total_items, get_expired; /* the usual ones */
    uint64_t get_flushed, touch_hits, touch_misses, delete_hits, delete_misses, incr_hits, incr_misses, decr_hits;
    uint64_t decr_misses, cas_hits, cas_misses, cas_badval, flushes, metas, too_large, no_memory, evictions;
    uint64_t evicted_unfetched, evicted_active, evicted_nonzero, reclaimed, expired_unfetched, out_of_memory;
    uint64_t total_connections;
    uint32_t evicted_age;
} stats;

EDGEOS_COUNTER(hits);
EDGEOS_COUNTER(misses);
EDGEOS_COUNTER(stored);
EDGEOS_COUNTER(evicted);
EDGEOS_COUNTER(expired);
EDGEOS_COUNTER(refused);
EDGEOS_COUNTER(items);
EDGEOS_COUNTER(item_bytes);

static struct {
    uint32_t item_size_max;
    bool evict;
    uint32_t verbosity;
} settings = {1024 * 1024, true, 0};

/* Seconds since a minute and two seconds before the first message; never back. */
static uint32_t now;
static uint64_t started_at; /* the same moment in seconds since 1970 */

static struct {
    struct item **buckets, **old;
    uint32_t mask, old_mask; /* old_mask: of `old`, while there is one */
    uint32_t moved;          /* buckets of `old` that are empty already */
    struct item *newest, *oldest;
    uint32_t count;
    uint64_t bytes;
    uint64_t last_cas;
    uint32_t flushed_until; /* items last written then or before are gone; 0 = none */
    uint64_t flushed_cas;   /* and those with a smaller CAS */
    uint32_t *sizes;        /* items by size in steps of 32 bytes, when a client asked for it */
    uint64_t sizes_since;   /* the first CAS that is in there */
} cache;

static struct item *first_buckets[FIRST_BUCKETS];

static void time_is(uint64_t time_ns) {
    uint64_t seconds = time_ns / 1000000000;
    if (!started_at) started_at = seconds - 62;
    if (seconds > started_at + now) now = (uint32_t)(seconds - started_at);
}

/* A client's expiry as a moment: 0 never, up to 30 days from now, beyond that since 1970. */
static uint32_t moment_of(int64_t expiry) {
    if (expiry == 0) return 0;
    if (expiry <= RELATIVE_MAX) return (uint32_t)expiry + now;
    return expiry <= (int64_t)started_at ? 1 : (uint32_t)((uint64_t)expiry - started_at);
}

/* The same for text, where a negative expiry is in the past. */
static uint32_t moment_of_text(int32_t expiry) { return moment_of(expiry < 0 ? RELATIVE_MAX + 1 : expiry); }

static uint8_t *item_value(struct item *it) { return it->bytes + it->key_len; }

/* The size that limits and statistics speak of is that of the 64-bit memcached, so that they agree with it. */
static uint64_t nominal_size(uint32_t key_len, uint32_t client_flags, uint64_t value_len) {
    return 48 + 8 + key_len + 1 + (client_flags ? 4 : 0) + value_len;
}
static uint32_t item_size(const struct item *it) {
    return (uint32_t)nominal_size(it->key_len, it->client_flags, it->value_len);
}
static bool size_allowed(uint32_t key_len, uint32_t client_flags, int64_t value_len) {
    return value_len >= 2 && nominal_size(key_len, client_flags, (uint64_t)value_len) <= settings.item_size_max;
}

static uint64_t next_cas(void) { return ++cache.last_cas; }

/* ---- The table ---- */

static struct item **bucket_of(uint32_t hash) {
    if (cache.old && (hash & cache.old_mask) >= cache.moved) return &cache.old[hash & cache.old_mask];
    return &cache.buckets[hash & cache.mask];
}

static void table_move_some(void) {
    for (uint32_t n = 0; cache.old && n < MOVED_AT_ONCE; n++) {
        struct item *it = cache.old[cache.moved++];
        while (it) {
            struct item *following = it->chain;
            struct item **bucket = &cache.buckets[it->hash & cache.mask];
            it->chain = *bucket;
            *bucket = it;
            it = following;
        }
        if (cache.moved <= cache.old_mask) continue;
        if (cache.old != first_buckets) arena_give(cache.old);
        cache.old = 0;
    }
}

static void table_grow(void) {
    uint32_t size = (cache.mask + 1) * 2;
    if (cache.old || cache.count < size) return;
    struct item **larger = arena_take(size * (uint32_t)sizeof *larger);
    if (!larger) return; /* chains get longer; nothing is evicted for this */
    memset(larger, 0, size * sizeof *larger);
    cache.old = cache.buckets;
    cache.old_mask = cache.mask;
    cache.moved = 0;
    cache.buckets = larger;
    cache.mask = size - 1;
}

static void table_open(void) {
    cache.buckets = first_buckets;
    cache.mask = FIRST_BUCKETS - 1;
}

/* ---- The list, newest first ---- */

static void list_remove(struct item *it) {
    *(it->newer ? &it->newer->older : &cache.newest) = it->older;
    *(it->older ? &it->older->newer : &cache.oldest) = it->newer;
}

static void list_add(struct item *it) {
    it->newer = 0;
    it->older = cache.newest;
    *(cache.newest ? &cache.newest->newer : &cache.oldest) = it;
    cache.newest = it;
}

static void list_refresh(struct item *it) {
    if (cache.newest == it) return;
    list_remove(it);
    list_add(it);
}

/* ---- Linking ---- */

static void sizes_count(const struct item *it, uint32_t one) {
    if (cache.sizes && it->cas >= cache.sizes_since) cache.sizes[(item_size(it) + 31) / 32] += one;
}

static void item_release(struct item *it) {
    if (--it->references == 0) arena_give(it);
}

static void item_link(struct item *it) {
    it->marks |= MARK_LINKED;
    it->used_at = now;
    it->cas = next_cas();
    it->references++;
    table_grow();
    struct item **bucket = bucket_of(it->hash);
    it->chain = *bucket;
    *bucket = it;
    list_add(it);
    cache.count++;
    cache.bytes += item_size(it);
    stats.total_items++;
    items.value = cache.count;
    item_bytes.value = cache.bytes;
    sizes_count(it, 1);
}

static void item_unlink(struct item *it) {
    if (!(it->marks & MARK_LINKED)) return;
    it->marks &= (uint8_t)~MARK_LINKED;
    struct item **at = bucket_of(it->hash);
    while (*at != it) at = &(*at)->chain;
    *at = it->chain;
    list_remove(it);
    cache.count--;
    cache.bytes -= item_size(it);
    items.value = cache.count;
    item_bytes.value = cache.bytes;
    sizes_count(it, (uint32_t)-1);
    item_release(it);
}

static void item_replace(struct item *old, struct item *it) {
    item_unlink(old);
    item_link(it);
}

static bool item_flushed(const struct item *it) {
    if (cache.flushed_until == 0 || cache.flushed_until > now) return false;
    return it->used_at <= cache.flushed_until || (cache.flushed_cas && it->cas && it->cas < cache.flushed_cas);
}

static bool item_expired(const struct item *it) { return it->expires && it->expires <= now; }

/* ---- Memory ---- */

/* Removes the item that was not used for the longest time. False: there is none that nobody refers to. */
static bool evict_one(void) {
    struct item *it = cache.oldest;
    while (it && it->references > 1) it = it->newer;
    if (!it) return false;
    if (item_expired(it) || item_flushed(it)) {
        stats.reclaimed++;
        stats.expired_unfetched += !(it->marks & MARK_FETCHED);
        expired.value++;
    } else {
        stats.evictions++;
        stats.evicted_unfetched += !(it->marks & MARK_FETCHED);
        stats.evicted_active += (it->marks & MARK_ACTIVE) != 0;
        stats.evicted_nonzero += it->expires != 0;
        stats.evicted_age = now - it->used_at;
        evicted.value++;
    }
    item_unlink(it);
    return true;
}

/* `len` bytes, for which items may have to go; 0 = there is no room. */
static void *take_memory(uint32_t len) {
    void *at = arena_take(len);
    if (at || !settings.evict || !arena_could_hold(len)) return at;
    while (!at && evict_one()) at = arena_take(len);
    return at;
}

/* A new item, not linked and referred to once; its value is not set yet. 0: too large, or no room. */
static struct item *item_new(const uint8_t *key, uint32_t key_len, uint32_t client_flags, uint32_t expires,
                             int64_t value_len) {
    if (!size_allowed(key_len, client_flags, value_len)) return 0;
    struct item *it = take_memory((uint32_t)(offsetof(struct item, bytes) + key_len + (uint32_t)value_len));
    if (!it) {
        stats.out_of_memory++;
        refused.value++;
        return 0;
    }
    memset(it, 0, offsetof(struct item, bytes));
    it->expires = expires;
    it->client_flags = client_flags;
    it->value_len = (uint32_t)value_len;
    it->references = 1;
    it->key_len = (uint8_t)key_len;
    it->hash = hash_of(key, key_len);
    memcpy(it->bytes, key, key_len);
    return it;
}

/* ---- Finding ---- */

static struct item *item_find(const uint8_t *key, uint32_t len) {
    table_move_some();
    uint32_t hash = hash_of(key, len);
    struct item *it = *bucket_of(hash);
    while (it && (it->hash != hash || it->key_len != len || memcmp(it->bytes, key, len) != 0)) it = it->chain;
    if (!it) return 0;
    if (item_flushed(it)) {
        stats.get_flushed++;
    } else if (item_expired(it)) {
        stats.get_expired++;
        expired.value++;
    } else {
        return it;
    }
    item_unlink(it);
    return 0;
}

/* Notes that an item was read. Its time moves with the second reading, as clients of `mg` can see. */
static void item_bump(struct item *it) {
    if (!(it->marks & MARK_FETCHED)) {
        it->marks |= MARK_FETCHED;
    } else if (!(it->marks & MARK_ACTIVE)) {
        it->marks |= MARK_ACTIVE;
        it->used_at = now;
    }
    list_refresh(it);
}

static struct item *item_get(const uint8_t *key, uint32_t len) {
    struct item *it = item_find(key, len);
    if (it) item_bump(it);
    return it;
}

static void cache_flush(uint32_t from) {
    cache.flushed_until = from - 1;
    if (cache.flushed_until <= now) cache.flushed_cas = next_cas();
}

/* ---- Storing ---- */

enum how { ADD = 1, SET, REPLACE, APPEND, PREPEND, CAS };
enum outcome { STORED, EXISTS, NOT_FOUND, NOT_STORED };

static struct item *item_joined(struct item *old, struct item *it, enum how how) {
    struct item *first = how == APPEND ? old : it, *second = how == APPEND ? it : old;
    old->references++; /* making room must not take it */
    struct item *both =
        item_new(it->bytes, it->key_len, old->client_flags, old->expires, (int64_t)old->value_len + it->value_len - 2);
    if (both) {
        memcpy(item_value(both), item_value(first), first->value_len - 2);
        memcpy(item_value(both) + first->value_len - 2, item_value(second), second->value_len);
    }
    old->references--;
    return both;
}

/* Stores an item that is filled. it->cas is the CAS that the client asks for, 0 = none; `may_be_stale` lets a smaller
 * one
 * through, marking the item. *cas becomes that of the stored item. */
static enum outcome item_store(struct item *it, enum how how, bool may_be_stale, uint64_t *cas) {
    struct item *old = item_find(it->bytes, it->key_len);
    stored.value++;
    if (!old) {
        if (how == CAS) {
            stats.cas_misses++;
            return NOT_FOUND;
        }
        if (how != ADD && how != SET) return NOT_STORED;
        item_link(it);
        *cas = it->cas;
        return STORED;
    }
    bool matches = it->cas == old->cas;
    bool stale = !matches && may_be_stale && it->cas && it->cas < old->cas;
    if (how == ADD) {
        old->used_at = now;
        list_refresh(old);
        return NOT_STORED;
    }
    if (how == CAS && !(it->cas && (matches || stale))) {
        stats.cas_badval++;
        return EXISTS;
    }
    struct item *both = 0;
    if (how == APPEND || how == PREPEND) {
        if (it->cas && !matches) return EXISTS;
        both = item_joined(old, it, how);
        if (!both) return NOT_STORED;
        it = both;
    } else if (how == CAS) {
        stats.cas_hits++;
        if (stale) {
            it->expires = old->expires;
            it->marks |= (uint8_t)(MARK_STALE | (old->marks & MARK_TOKEN_SENT));
        }
    }
    item_replace(old, it);
    *cas = it->cas;
    if (both) item_release(both);
    return STORED;
}

enum added { ADDED, ADD_MISSING, ADD_NOT_A_NUMBER, ADD_NO_MEMORY, ADD_WRONG_CAS };

/* Adds to a number, or takes away down to 0. *cas is the one asked for, 0 = any, and becomes that of the result.
 * *result is
 * the item as it is then. A number that gets shorter is padded with spaces. */
static enum added item_add(const uint8_t *key, uint32_t key_len, bool up, uint64_t delta, uint64_t *cas, uint64_t
    *value,
                           struct item **result) {
    struct item *it = item_find(key, key_len);
    if (!it) return ADD_MISSING;
    if (it->value_len <= 2) return ADD_NOT_A_NUMBER;
    if (*cas && *cas != it->cas) return ADD_WRONG_CAS;
    if (!read_u64(item_value(it), it->value_len, value)) return ADD_NOT_A_NUMBER;
    *value = up ? *value + delta : *value < delta ? 0 : *value - delta;
    up ? stats.incr_hits++ : stats.decr_hits++;
    uint8_t digits[20];
    uint32_t len = (uint32_t)(write_u64(digits, *value) - digits);
    if (len + 2 <= it->value_len && it->references == 1) {
        sizes_count(it, (uint32_t)-1);
        it->cas = next_cas();
        sizes_count(it, 1);
        memcpy(item_value(it), digits, len);
        memset(item_value(it) + len, ' ', it->value_len - len - 2);
        it->used_at = now;
        list_refresh(it);
    } else {
        it->references++;
        struct item *longer = item_new(key, key_len, it->client_flags, it->expires, (int64_t)len + 2);
        it->references--;
        if (!longer) return ADD_NO_MEMORY;
        memcpy(item_value(longer), digits, len);
        memcpy(item_value(longer) + len, "\r\n", 2);
        item_replace(it, longer);
        item_release(longer);
        it = longer;
    }
    *cas = it->cas;
    *result = it;
    return ADDED;
}

/* Links a new item that holds a number. */
static struct item *item_number(const uint8_t *key, uint32_t key_len, uint32_t expires, uint64_t value) {
    uint8_t digits[20];
    uint32_t len = (uint32_t)(write_u64(digits, value) - digits);
    struct item *it = item_new(key, key_len, 0, expires, (int64_t)len + 2);
    if (!it) return 0;
    memcpy(item_value(it), digits, len);
    memcpy(item_value(it) + len, "\r\n", 2);
    item_link(it);
    item_release(it);
    return it;
}

#endif
