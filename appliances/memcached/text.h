/* text.h: the text protocol, its old commands and those of the meta protocol. */
#ifndef MEMCACHED_TEXT_H
#define MEMCACHED_TEXT_H

#include "statistics.h"

#define WORDS_MAX 23
#define META_WORDS_MAX 19
#define LINE_MAX_UNFINISHED 16384 /* without its end, only a `get` may be longer; what memcached reads at once */
#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define TOO_LARGE "SERVER_ERROR object too large for cache"
#define NO_MEMORY "SERVER_ERROR out of memory storing object"

struct word {
    uint8_t *at;
    uint32_t len;
};
struct words {
    struct word list[WORDS_MAX + 1]; /* an empty one behind the last */
    uint32_t count;
    uint8_t *rest; /* what did not fit; 0 = nothing */
};

static void split(struct words *w, uint8_t *at, uint8_t *end) {
    w->count = 0;
    w->rest = 0;
    while (at < end && w->count < WORDS_MAX) {
        while (at < end && *at == ' ') at++;
        uint8_t *first = at;
        while (at < end && *at != ' ') at++;
        if (at > first) w->list[w->count++] = (struct word){first, (uint32_t)(at - first)};
    }
    if (w->count == WORDS_MAX && at < end) w->rest = at + 1 < end ? at + 1 : 0;
    w->list[w->count] = (struct word){end, 0};
}

static bool same(struct word w, const char *text) { return w.len == strlen(text) && memcmp(w.at, text, w.len) == 0; }

/* An answer of one line, unless the client wants none. */
static void answer(struct connection *c, const char *line) {
    if (c->no_reply) return;
    reply_begin();
    put_text(line);
    put_text("\r\n");
    reply_end(c);
}

/* An error of the meta protocol, which is always answered. */
static void meta_error(struct connection *c, const char *line) {
    c->no_reply = false;
    answer(c, line);
}

static void find_noreply(struct connection *c, const struct words *w) {
    if (same(w->list[w->count - 1], "noreply")) c->no_reply = true;
}

/* ---- get, gets, gat, gats ---- */

static bool long_word(const uint8_t *at, const uint8_t *end) {
    uint32_t run = 0;
    for (; at < end; at++) {
        run = *at == ' ' ? 0 : run + 1;
        if (run > KEY_MAX) return true;
    }
    return false;
}

/* The item of a key that is asked for; it counts as read, and lives on until `expires` if it is to be touched. */
static struct item *text_look_up(struct word key, bool touch, uint32_t expires) {
    struct item *it = item_get(key.at, key.len);
    stats.touches += touch;
    if (!it) {
        touch ? stats.touch_misses++ : stats.get_misses++;
        misses.value++;
        return 0;
    }
    touch ? stats.touch_hits++ : stats.get_hits++;
    hits.value++;
    if (touch) it->expires = expires;
    return it;
}

/* Of keys one of which is too long, those before it are read, too, though nobody is told. */
static void text_get_in_vain(struct words *w, uint32_t first, uint8_t *end, bool touch, uint32_t expires) {
    for (;; first = 0) {
        for (uint32_t i = first; i < w->count; i++) {
            if (w->list[i].len > KEY_MAX) return;
            text_look_up(w->list[i], touch, expires);
        }
        if (!w->rest) return;
        split(w, w->rest, end);
    }
}

static void text_get(struct connection *c, struct words *w, uint8_t *end, bool with_cas, bool touch) {
    uint32_t first = 1, expires = 0;
    if (touch) {
        int32_t expiry;
        if (!read_i32(w->list[1].at, w->list[1].len, &expiry)) {
            answer(c, "CLIENT_ERROR invalid exptime argument");
            return;
        }
        expires = moment_of_text(expiry);
        first = 2;
    }
    if (long_word(w->list[first].at, end)) {
        text_get_in_vain(w, first, end, touch, expires);
        answer(c, BAD_FORMAT);
        return;
    }
    reply_begin();
    bool open = false; /* the reply is not sent yet */
    for (;;) {
        for (uint32_t i = first; i < w->count; i++) {
            if (open) reply_end(c);
            open = false;
            struct item *it = text_look_up(w->list[i], touch, expires);
            if (!it) continue;
            put_text("VALUE ");
            put(it->bytes, it->key_len);
            put_text(" ");
            put_number(it->client_flags);
            put_text(" ");
            put_number(it->value_len - 2);
            if (with_cas) {
                put_text(" ");
                put_number(it->cas);
            }
            put_text("\r\n");
            reply_body(it, item_value(it), it->value_len);
            open = true;
        }
        if (!w->rest) break;
        split(w, w->rest, end);
        first = 0;
    }
    reply.tail = "END\r\n";
    reply_end(c);
}

/* ---- Storage commands: the line, then the value ---- */

/* Reads over a value that is not wanted. A set that cannot be done must not leave the old value. */
static void text_refuse(struct connection *c, const uint8_t *key, uint32_t key_len, uint32_t client_flags, int32_t
    value_len,
                        bool remove) {
    bool fits = size_allowed(key_len, client_flags, value_len);
    fits ? stats.no_memory++ : stats.too_large++;
    answer(c, fits ? NO_MEMORY : TOO_LARGE);
    c->swallow = (uint32_t)value_len;
    struct item *old = remove ? item_find(key, key_len) : 0;
    if (old) item_unlink(old);
}

static void text_store(struct connection *c, struct words *w, enum how how) {
    struct word *l = w->list;
    uint32_t client_flags;
    int32_t expiry, value_len;
    uint64_t cas = 0;
    find_noreply(c, w);
    if (l[1].len > KEY_MAX || !read_u32(l[2].at, l[2].len, &client_flags) || !read_i32(l[3].at, l[3].len, &expiry) ||
        !read_i32(l[4].at, l[4].len, &value_len) || (how == CAS && !read_u64(l[5].at, l[5].len, &cas)) || value_len <
            0 ||
        value_len > INT32_MAX - 2) {
        answer(c, BAD_FORMAT);
        return;
    }
    value_len += 2;
    struct item *it = item_new(l[1].at, l[1].len, client_flags, moment_of_text(expiry), value_len);
    if (!it) {
        text_refuse(c, l[1].at, l[1].len, client_flags, value_len, how == SET);
        return;
    }
    it->cas = cas;
    c->upload.item = it;
    c->upload.needed = (uint32_t)value_len;
    c->upload.how = how;
    c->upload.no_reply = c->no_reply;
}

static void meta_stored(struct connection *c, enum outcome outcome, uint64_t cas) {
    struct upload *u = &c->upload;
    if (outcome == STORED && u->no_reply) return;
    reply_begin();
    put_text(outcome == STORED ? "HD" : outcome == EXISTS ? "EX" : outcome == NOT_FOUND ? "NF" : "NS");
    for (uint32_t i = 0; i < u->wanted_count; i++) {
        put_text(" ");
        put(&u->wanted[i], 1);
        if (u->wanted[i] == 'O') put(u->opaque, u->opaque_len);
        if (u->wanted[i] == 'c') put_number(cas);
        if (u->wanted[i] != 'k') continue;
        if (u->item->marks & MARK_BINARY_KEY) {
            reply.at = write_base64(reply.at, u->item->bytes, u->item->key_len);
            put_text(" b");
        } else {
            put(u->item->bytes, u->item->key_len);
        }
    }
    put_text("\r\n");
    reply_end(c);
}

/* The value has come. */
static void text_complete(struct connection *c) {
    struct upload *u = &c->upload;
    struct item *it = u->item;
    c->no_reply = u->no_reply;
    stats.sets++;
    if (memcmp(item_value(it) + it->value_len - 2, "\r\n", 2) != 0) {
        if (u->meta) c->no_reply = false;
        answer(c, "CLIENT_ERROR bad data chunk");
        upload_end(c);
        return;
    }
    uint64_t cas = 0;
    enum outcome outcome = item_store(it, u->how, u->may_be_stale, &cas);
    if (u->meta) {
        meta_stored(c, outcome, cas);
    } else {
        static const char *const lines[] = {"STORED", "EXISTS", "NOT_FOUND", "NOT_STORED"};
        answer(c, lines[outcome]);
    }
    upload_end(c);
}

/* ---- Other old commands ---- */

static void text_touch(struct connection *c, struct words *w) {
    struct word *l = w->list;
    int32_t expiry;
    find_noreply(c, w);
    if (l[1].len > KEY_MAX) {
        answer(c, BAD_FORMAT);
        return;
    }
    if (!read_i32(l[2].at, l[2].len, &expiry)) {
        answer(c, "CLIENT_ERROR invalid exptime argument");
        return;
    }
    struct item *it = item_get(l[1].at, l[1].len);
    stats.touches++;
    it ? stats.touch_hits++ : stats.touch_misses++;
    if (it) it->expires = moment_of_text(expiry);
    answer(c, it ? "TOUCHED" : "NOT_FOUND");
}

static void text_add(struct connection *c, struct words *w, bool up) {
    struct word *l = w->list;
    uint64_t delta, value, cas = 0;
    struct item *it;
    find_noreply(c, w);
    if (l[1].len > KEY_MAX) {
        answer(c, BAD_FORMAT);
        return;
    }
    if (!read_u64(l[2].at, l[2].len, &delta)) {
        answer(c, "CLIENT_ERROR invalid numeric delta argument");
        return;
    }
    uint8_t digits[21];
    switch (item_add(l[1].at, l[1].len, up, delta, &cas, &value, &it)) {
    case ADDED:
        *write_u64(digits, value) = 0;
        answer(c, (const char *)digits);
        break;
    case ADD_NOT_A_NUMBER: answer(c, "CLIENT_ERROR cannot increment or decrement non-numeric value"); break;
    case ADD_NO_MEMORY: answer(c, "SERVER_ERROR out of memory"); break;
    case ADD_WRONG_CAS:
    case ADD_MISSING:
        up ? stats.incr_misses++ : stats.decr_misses++;
        answer(c, "NOT_FOUND");
    }
}

static void text_delete(struct connection *c, struct words *w) {
    struct word *l = w->list;
    if (w->count > 2) {
        bool zero = same(l[2], "0");
        find_noreply(c, w);
        if (!((w->count == 3 && (zero || c->no_reply)) || (w->count == 4 && zero && c->no_reply))) {
            answer(c, BAD_FORMAT ".  Usage: delete <key> [noreply]");
            return;
        }
    }
    if (l[1].len > KEY_MAX) {
        answer(c, BAD_FORMAT);
        return;
    }
    struct item *it = item_find(l[1].at, l[1].len);
    it ? stats.delete_hits++ : stats.delete_misses++;
    if (it) item_unlink(it);
    answer(c, it ? "DELETED" : "NOT_FOUND");
}

static void text_flush(struct connection *c, struct words *w) {
    int32_t delay = 0;
    find_noreply(c, w);
    stats.flushes++;
    if (w->count != (c->no_reply ? 2 : 1) && !read_i32(w->list[1].at, w->list[1].len, &delay)) {
        answer(c, "CLIENT_ERROR invalid exptime argument");
        return;
    }
    cache_flush(delay > 0 ? moment_of(delay) : now);
    answer(c, "OK");
}

static void text_verbosity(struct connection *c, struct words *w) {
    uint32_t level;
    find_noreply(c, w);
    bool good = read_u32(w->list[1].at, w->list[1].len, &level);
    if (good) settings.verbosity = level > 2 ? 2 : level;
    answer(c, good ? "OK" : BAD_FORMAT);
}

static void text_memory_limit(struct connection *c, struct words *w) {
    uint32_t megabytes;
    find_noreply(c, w);
    if (!read_u32(w->list[1].at, w->list[1].len, &megabytes)) {
        answer(c, "ERROR");
    } else if (megabytes < 8) {
        answer(c, "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m");
    } else if (megabytes > 1000000000) {
        answer(c, "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes");
    } else {
        answer(c, "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust");
    }
}

static void text_stats(struct connection *c, struct words *w) {
    struct word section = w->list[1];
    if (same(section, "reset")) {
        stats_clear();
        answer(c, "RESET");
        return;
    }
    sheet_begin(false, 0);
    if (same(section, "cachedump")) {
        uint32_t class, limit;
        const char *error = w->count < 4 ? "CLIENT_ERROR bad command line"
                            : !read_u32(w->list[2].at, w->list[2].len, &class) ||
                                    !read_u32(w->list[3].at, w->list[3].len, &limit)
                                ? BAD_FORMAT
                            : class > 63 ? "CLIENT_ERROR Illegal slab id"
                                         : 0;
        if (error) {
            answer(c, error);
            return;
        }
        stats_cachedump(class, limit);
    } else if (!stats_section(c, section.at, section.len)) {
        answer(c, "ERROR");
        return;
    }
    if (!sheet_send(c)) answer(c, "SERVER_ERROR out of memory writing stats");
}

/* Commands about machinery that is not here: threads that crawl and move, logs to watch. */
static void text_machinery(struct connection *c, struct words *w) {
    struct word first = w->list[0], second = w->list[1];
    find_noreply(c, w);
    if (same(first, "watch")) {
        answer(c, "CLIENT_ERROR watch commands not allowed");
    } else if (same(first, "slabs")) {
        answer(c, w->count == 4 && same(second, "reassign") ? "CLIENT_ERROR slab reassignment disabled" : "ERROR");
    } else if (same(first, "lru_crawler")) {
        bool known = w->count == 3 && (same(second, "crawl") || same(second, "metadump"));
        answer(c, known ? "CLIENT_ERROR lru crawler disabled" : "ERROR");
    } else {
        answer(c, "ERROR");
    }
}

/* ---- The meta protocol ---- */

struct meta {
    bool no_update, vivify, value, stale, no_reply, has_cas, new_expiry, binary_key;
    uint8_t mode;
    uint32_t expires, vivified_expires, recache_before, client_flags;
    uint64_t cas, delta, initial;
};

static bool meta_moment(struct word w, uint32_t *moment) {
    int32_t expiry;
    if (!read_i32(w.at + 1, w.len - 1, &expiry)) return false;
    *moment = moment_of_text(expiry);
    return true;
}

/* Reads the flags from word `first` on, and decodes a binary key in place. Returns what is wrong, 0 = nothing; of
 * several
 * errors the last. */
static const char *meta_flags(struct words *w, uint32_t first, struct meta *m) {
    const char *const bad_token = "CLIENT_ERROR bad token in command line format";
    const char *error = 0;
    uint8_t seen[128] = {0};
    memset(m, 0, sizeof *m);
    m->delta = 1;
    for (uint32_t i = first; i < w->count; i++) {
        struct word f = w->list[i];
        uint8_t flag = f.at[0];
        if (flag >= 127 || seen[flag]) return "CLIENT_ERROR duplicate flag";
        seen[flag] = 1;
        switch (flag) {
        case 'b':
            w->list[1].len = read_base64(w->list[1].at, w->list[1].len);
            if (!w->list[1].len) error = "CLIENT_ERROR error decoding key";
            m->binary_key = true;
            break;
        case 'N':
            m->vivify = true;
            if (!meta_moment(f, &m->vivified_expires)) error = bad_token;
            break;
        case 'T':
            if (!meta_moment(f, &m->expires)) error = bad_token;
            else m->new_expiry = true;
            break;
        case 'R':
            if (!meta_moment(f, &m->recache_before)) error = bad_token;
            break;
        case 'F':
            if (!read_u32(f.at + 1, f.len - 1, &m->client_flags)) error = error ? error : BAD_FORMAT;
            break;
        case 'C':
            if (!read_u64(f.at + 1, f.len - 1, &m->cas)) error = bad_token;
            else m->has_cas = true;
            break;
        case 'M':
            if (f.len != 2) error = "CLIENT_ERROR incorrect length for M token";
            else m->mode = f.at[1];
            break;
        case 'J':
            if (!read_u64(f.at + 1, f.len - 1, &m->initial)) error = "CLIENT_ERROR invalid numeric initial value";
            break;
        case 'D':
            if (!read_u64(f.at + 1, f.len - 1, &m->delta)) error = "CLIENT_ERROR invalid numeric delta value";
            break;
        case 'v': m->value = true; break;
        case 'u': m->no_update = true; break;
        case 'q': m->no_reply = true; break;
        case 'I': m->stale = true; break;
        case 'O': case 'P': case 'L': case 'k': case 's': case 't': case 'c': case 'f': case 'l': case 'h': break;
        default: return "CLIENT_ERROR invalid flag";
        }
    }
    return error;
}

static bool opaques_fit(const struct words *w) {
    for (uint32_t i = 2; i < w->count; i++) {
        if (w->list[i].at[0] == 'O' && w->list[i].len > OPAQUE_MAX) return false;
    }
    return true;
}

static void put_key(const uint8_t *key, uint32_t len, bool binary) {
    put_text(" k");
    if (binary) {
        reply.at = write_base64(reply.at, key, len);
        put_text(" b");
    } else {
        put(key, len);
    }
}

static void put_opaque_and_key(const struct words *w, bool binary) {
    for (uint32_t i = 2; i < w->count; i++) {
        struct word f = w->list[i];
        if (f.at[0] == 'O') {
            put_text(" ");
            put(f.at, f.len);
        }
        if (f.at[0] == 'k') put_key(w->list[1].at, w->list[1].len, binary);
    }
}

static void put_time_left(const struct item *it) {
    if (it->expires) {
        put_number(it->expires - now);
    } else {
        put_text("-1");
    }
}

/* What all of them check first. False: answered. */
static bool meta_begin(struct connection *c, struct words *w, const char *too_many) {
    if (w->count < 2) {
        answer(c, "ERROR");
    } else if (w->list[1].len > KEY_MAX) {
        answer(c, BAD_FORMAT);
    } else if (w->count > META_WORDS_MAX) {
        answer(c, too_many);
    } else {
        return true;
    }
    return false;
}

/* The flags of a hit that say something about the item, in the order of the request. True: this client won the token.
   */
static bool put_item_flags(struct words *w, struct meta *m, struct item *it, bool created, bool *touched) {
    bool won = false;
    for (uint32_t i = 2; i < w->count; i++) {
        struct word f = w->list[i];
        switch (f.at[0]) {
        case 'T':
            *touched = true;
            it->expires = m->expires;
            break;
        case 'N':
            if (!created) break;
            it->expires = m->vivified_expires;
            won = true;
            break;
        case 'R':
            won |= !(it->marks & MARK_TOKEN_SENT) && !created && it->expires && it->expires < m->recache_before;
            break;
        case 's':
            put_text(" s");
            put_number(it->value_len - 2);
            break;
        case 't':
            put_text(" t");
            put_time_left(it);
            break;
        case 'c':
            put_text(" c");
            put_number(it->cas);
            break;
        case 'f':
            put_text(" f");
            put_number(it->client_flags);
            break;
        case 'l':
            put_text(" l");
            put_number(now - it->used_at);
            break;
        case 'h': put_text(it->marks & MARK_FETCHED ? " h1" : " h0"); break;
        case 'O':
            put_text(" ");
            put(f.at, f.len);
            break;
        case 'k': put_key(it->bytes, it->key_len, it->marks & MARK_BINARY_KEY); break;
        default: break;
        }
    }
    return won;
}

static bool meta_delays_bump(const struct words *w) {
    for (uint32_t i = 2; i < w->count; i++) {
        if (strchr("NTRlh", w->list[i].at[0])) return true;
    }
    return false;
}

static void meta_get(struct connection *c, struct words *w) {
    struct meta m;
    if (!meta_begin(c, w, "CLIENT_ERROR options flags are too long")) return;
    const char *error = meta_flags(w, 2, &m);
    if (error) {
        meta_error(c, error);
        return;
    }
    c->no_reply = m.no_reply;
    struct word key = w->list[1];
    struct item *it = item_find(key.at, key.len);
    bool created = false, touched = false, late = meta_delays_bump(w);
    if (it && !late && !m.no_update) item_bump(it);
    if (!it && m.vivify && (it = item_new(key.at, key.len, 0, 0, 2))) {
        memcpy(item_value(it), "\r\n", 2);
        item_link(it);
        item_release(it);
        created = true;
    }
    if (!opaques_fit(w)) {
        meta_error(c, "CLIENT_ERROR opaque token too long");
        return;
    }
    reply_begin();
    if (!it) {
        stats.get_misses++;
        misses.value++;
        if (m.no_reply) return;
        put_text("EN");
        put_opaque_and_key(w, m.binary_key);
        put_text("\r\n");
        reply_end(c);
        return;
    }
    put_text(m.value ? "VA " : "HD");
    if (m.value) put_number(it->value_len - 2);
    bool won = put_item_flags(w, &m, it, created, &touched);
    bool sent = it->marks & MARK_TOKEN_SENT;
    if (sent) put_text(" Z");
    if (it->marks & MARK_STALE) {
        put_text(" X");
        won |= !sent;
    }
    if (won) {
        put_text(" W");
        it->marks |= MARK_TOKEN_SENT;
    }
    put_text("\r\n");
    if (m.value) reply_body(it, item_value(it), it->value_len);
    if (late && !m.no_update) item_bump(it);
    if (touched) {
        stats.touches++;
        stats.touch_hits++;
    } else {
        stats.get_hits++;
    }
    hits.value++;
    reply_end(c);
}

static void meta_set(struct connection *c, struct words *w) {
    struct meta m;
    int32_t value_len;
    if (w->count == 2 && w->list[1].len <= KEY_MAX) {
        answer(c, BAD_FORMAT);
        return;
    }
    if (!meta_begin(c, w, "CLIENT_ERROR options flags too long")) return;
    if (!read_i32(w->list[2].at, w->list[2].len, &value_len) || value_len < 0 || value_len > INT32_MAX - 2) {
        answer(c, BAD_FORMAT);
        return;
    }
    value_len += 2;
    const char *error = meta_flags(w, 3, &m);
    if (!error) c->no_reply = m.no_reply;
    enum how how = SET;
    switch (m.mode) {
    case 0: case 'S': break;
    case 'E': how = ADD; break;
    case 'A': how = APPEND; break;
    case 'P': how = PREPEND; break;
    case 'R': how = REPLACE; break;
    default: error = error ? error : "CLIENT_ERROR invalid mode for ms M token";
    }
    if (!error && !opaques_fit(w)) error = "CLIENT_ERROR opaque token too long";
    if (error) {
        meta_error(c, error);
        c->swallow = (uint32_t)value_len;
        return;
    }
    if (m.has_cas && (how == SET || how == REPLACE)) how = CAS;
    struct word key = w->list[1];
    struct item *it = item_new(key.at, key.len, m.client_flags, m.expires, value_len);
    if (!it) {
        c->no_reply = false;
        text_refuse(c, key.at, key.len, m.client_flags, value_len, true);
        return;
    }
    it->cas = m.cas;
    if (m.binary_key) it->marks |= MARK_BINARY_KEY;
    struct upload *u = &c->upload;
    u->item = it;
    u->needed = (uint32_t)value_len;
    u->how = how;
    u->meta = true;
    u->may_be_stale = m.stale && how == CAS;
    u->no_reply = m.no_reply;
    for (uint32_t i = 3; i < w->count; i++) {
        struct word f = w->list[i];
        if (f.at[0] == 'O') {
            u->opaque_len = (uint8_t)(f.len - 1);
            memcpy(u->opaque, f.at + 1, f.len - 1);
        }
        if (f.at[0] == 'O' || f.at[0] == 'k' || f.at[0] == 'c') u->wanted[u->wanted_count++] = f.at[0];
    }
}

static void meta_delete(struct connection *c, struct words *w) {
    struct meta m;
    if (!meta_begin(c, w, "CLIENT_ERROR options flags too long")) return;
    if (meta_flags(w, 2, &m)) {
        meta_error(c, "CLIENT_ERROR invalid or duplicate flag");
        return;
    }
    if (!opaques_fit(w)) {
        meta_error(c, "CLIENT_ERROR opaque token too long");
        return;
    }
    const char *outcome = "HD";
    struct item *it = item_find(w->list[1].at, w->list[1].len);
    if (!it || (m.has_cas && it->cas != m.cas)) {
        stats.delete_misses++;
        outcome = it ? "EX" : "NF";
    } else if (m.stale) {
        if (m.new_expiry) it->expires = m.expires;
        it->marks = (uint8_t)((it->marks | MARK_STALE) & ~MARK_TOKEN_SENT);
        it->cas = next_cas();
    } else {
        stats.delete_hits++;
        item_unlink(it);
    }
    if (m.no_reply && outcome[0] == 'H') return;
    reply_begin();
    put_text(outcome);
    put_opaque_and_key(w, m.binary_key);
    put_text("\r\n");
    reply_end(c);
}

static void meta_add(struct connection *c, struct words *w) {
    struct meta m;
    if (!meta_begin(c, w, "CLIENT_ERROR options flags too long")) return;
    if (meta_flags(w, 2, &m)) {
        meta_error(c, "CLIENT_ERROR invalid or duplicate flag");
        return;
    }
    if (m.mode && !strchr("I+D-", m.mode)) {
        meta_error(c, "CLIENT_ERROR invalid mode for ma M token");
        return;
    }
    bool up = m.mode != 'D' && m.mode != '-', created = false;
    struct word key = w->list[1];
    struct item *it = 0;
    uint64_t value = 0, cas = m.cas;
    enum added added = item_add(key.at, key.len, up, m.delta, &cas, &value, &it);
    const char *error = added == ADD_NOT_A_NUMBER ? "CLIENT_ERROR cannot increment or decrement non-numeric value"
                        : added == ADD_NO_MEMORY  ? "SERVER_ERROR out of memory"
                                                  : 0;
    if (added == ADD_MISSING && m.vivify) {
        value = m.initial;
        it = item_number(key.at, key.len, 0, value);
        created = it != 0;
        if (!it) error = "SERVER_ERROR Out of memory allocating new item";
    } else if (added == ADD_MISSING) {
        up ? stats.incr_misses++ : stats.decr_misses++;
    }
    if (!error && !opaques_fit(w)) error = "CLIENT_ERROR opaque token too long";
    if (error) {
        meta_error(c, error);
        return;
    }
    if (m.no_reply && added == ADDED) return;
    reply_begin();
    uint8_t digits[20];
    uint32_t len = (uint32_t)(write_u64(digits, value) - digits);
    if (!it) {
        put_text(added == ADD_WRONG_CAS ? "EX" : "NF");
        put_opaque_and_key(w, m.binary_key);
    } else {
        put_text(m.value ? "VA " : "HD");
        if (m.value) put_number(len);
        for (uint32_t i = 2; i < w->count; i++) {
            struct word f = w->list[i];
            if (f.at[0] == 'T') it->expires = m.expires;
            if (f.at[0] == 'N' && created) it->expires = m.vivified_expires;
            if (f.at[0] == 'c') {
                put_text(" c");
                put_number(it->cas);
            }
            if (f.at[0] == 't') {
                put_text(" t");
                put_time_left(it);
            }
            if (f.at[0] == 'O') {
                put_text(" ");
                put(f.at, f.len);
            }
            if (f.at[0] == 'k') put_key(key.at, key.len, m.binary_key);
        }
        if (m.value) {
            put_text("\r\n");
            put(digits, len);
        }
    }
    put_text("\r\n");
    reply_end(c);
}

/* `me`: an item's inside, for people. */
static void meta_explain(struct connection *c, struct words *w) {
    if (w->count < 2 || w->list[1].len > KEY_MAX) {
        answer(c, BAD_FORMAT);
        return;
    }
    struct word key = w->list[1];
    if (w->count > 2 && same(w->list[2], "b") && !(key.len = read_base64(key.at, key.len))) {
        answer(c, BAD_FORMAT);
        return;
    }
    stats.metas++;
    struct item *it = item_find(key.at, key.len);
    if (!it) {
        answer(c, "EN");
        return;
    }
    reply_begin();
    put_text("ME ");
    if (it->marks & MARK_BINARY_KEY) {
        reply.at = write_base64(reply.at, it->bytes, it->key_len);
    } else {
        put(it->bytes, it->key_len);
    }
    put_text(" exp=");
    if (!it->expires || it->expires > now) put_text("-");
    put_number(!it->expires ? 1 : it->expires > now ? it->expires - now : 0);
    put_text(" la=");
    put_number(now - it->used_at);
    put_text(" cas=");
    put_number(it->cas);
    put_text(it->marks & MARK_FETCHED ? " fetch=yes" : " fetch=no");
    put_text(" cls=1 size=");
    put_number(item_size(it));
    put_text("\r\n");
    reply_end(c);
}

/* ---- One line ---- */

static void text_command(struct connection *c, uint8_t *line, uint8_t *end) {
    static const struct { const char *name; uint8_t how, least; } stores[] = {
        {"set", SET, 5}, {"add", ADD, 5}, {"replace", REPLACE, 5}, {"append", APPEND, 5}, {"prepend", PREPEND, 5},
        {"cas", CAS, 6},
    };
    struct words w;
    c->no_reply = false;
    uint8_t *nul = memchr(line, 0, (size_t)(end - line));
    if (nul) end = nul;
    split(&w, line, end);
    struct word name = w.list[0];
    uint32_t n = w.count;
    for (uint32_t i = 0; n && i < sizeof stores / sizeof *stores; i++) {
        if (!same(name, stores[i].name)) continue;
        if (n != stores[i].least && n != stores[i].least + 1u) {
            answer(c, "ERROR");
        } else {
            text_store(c, &w, (enum how)stores[i].how);
        }
        return;
    }
    if (n == 0 || name.len < 2) {
        answer(c, "ERROR");
    } else if (name.len == 2 && name.at[0] == 'm') {
        switch (name.at[1]) {
        case 'g': meta_get(c, &w); break;
        case 's': meta_set(c, &w); break;
        case 'd': meta_delete(c, &w); break;
        case 'a': meta_add(c, &w); break;
        case 'e': meta_explain(c, &w); break;
        case 'n': answer(c, "MN"); break;
        default: answer(c, "ERROR");
        }
    } else if (same(name, "get") || same(name, "gets") || same(name, "gat") || same(name, "gats") || same(name,
        "bget")) {
        if (n < 2) answer(c, "ERROR");
        else text_get(c, &w, end, name.at[name.len - 1] == 's', name.at[1] == 'a');
    } else if (same(name, "delete")) {
        if (n < 2 || n > 4) answer(c, "ERROR");
        else text_delete(c, &w);
    } else if (same(name, "incr") || same(name, "decr")) {
        if (n != 3 && n != 4) answer(c, "ERROR");
        else text_add(c, &w, name.at[0] == 'i');
    } else if (same(name, "touch")) {
        if (n != 3 && n != 4) answer(c, "ERROR");
        else text_touch(c, &w);
    } else if (same(name, "flush_all")) {
        if (n > 3) answer(c, "ERROR");
        else text_flush(c, &w);
    } else if (same(name, "verbosity") || same(name, "cache_memlimit")) {
        if (n != 2 && n != 3) answer(c, "ERROR");
        else name.at[0] == 'v' ? text_verbosity(c, &w) : text_memory_limit(c, &w);
    } else if (same(name, "stats")) {
        text_stats(c, &w);
    } else if (same(name, "version")) {
        answer(c, "VERSION " VERSION);
    } else if (same(name, "quit")) {
        c->closing = true;
    } else if (same(name, "shutdown")) {
        answer(c, "ERROR: shutdown not enabled");
    } else if (same(name, "watch") || same(name, "slabs") || same(name, "lru_crawler")) {
        text_machinery(c, &w);
    } else if (!strchr("gsacidtm", name.at[0]) && w.list[n - 1].len >= 5 && memcmp(w.list[n - 1].at, "HTTP/", 5) == 0) {
        c->closing = true;
    } else {
        answer(c, "ERROR");
    }
}

/* Whether a line of which this is the beginning may go on without end. */
static bool may_be_long(const uint8_t *at, uint32_t len) {
    uint32_t blank = 0;
    while (blank < len && at[blank] == ' ') blank++;
    at += blank;
    return blank <= 100 && len - blank >= 5 && (memcmp(at, "get ", 4) == 0 || memcmp(at, "gets ", 5) == 0);
}

/* Deals with one line; returns its bytes, 0 = its end has not come. */
static uint32_t text_read(struct connection *c, uint8_t *at, uint32_t len) {
    uint8_t *end = memchr(at + c->searched, '\n', len - c->searched);
    if (!end) {
        c->searched = len;
        if (len > LINE_MAX_UNFINISHED && !may_be_long(at, len)) c->closing = true;
        return 0;
    }
    c->searched = 0;
    uint8_t *last = end - at > 1 && end[-1] == '\r' ? end - 1 : end;
    c->last_command = now;
    text_command(c, at, last);
    return (uint32_t)(end + 1 - at);
}

#endif
