/* binary.h: the binary protocol with its quiet commands; without SASL, as a memcached that has it switched off. */
#ifndef MEMCACHED_BINARY_H
#define MEMCACHED_BINARY_H

#include "text.h"

#define BINARY_REQUEST 0x80
#define BINARY_READ_MAX 16384u /* a header with its extras and key that is longer ends the connection */

enum opcode {
    OP_GET, OP_SET, OP_ADD, OP_REPLACE, OP_DELETE, OP_INCREMENT, OP_DECREMENT, OP_QUIT, OP_FLUSH, OP_GETQ, OP_NOOP,
    OP_VERSION, OP_GETK, OP_GETKQ, OP_APPEND, OP_PREPEND, OP_STAT, OP_SETQ, OP_ADDQ, OP_REPLACEQ, OP_DELETEQ,
    OP_INCREMENTQ, OP_DECREMENTQ, OP_QUITQ, OP_FLUSHQ, OP_APPENDQ, OP_PREPENDQ, OP_TOUCH = 0x1c, OP_GAT, OP_GATQ,
    OP_SASL_LIST = 0x20, OP_SASL_AUTH, OP_SASL_STEP, OP_GATK, OP_GATKQ
};

enum status {
    OK = 0, NO_ENTRY = 1, KEY_EXISTS = 2, TOO_BIG = 3, INVALID = 4, STORE_REFUSED = 5, BAD_DELTA = 6,
    UNKNOWN_COMMAND = 0x81, OUT_OF_MEMORY = 0x82
};

static const char *status_text(enum status status) {
    switch (status) {
    case NO_ENTRY: return "Not found";
    case KEY_EXISTS: return "Data exists for key.";
    case TOO_BIG: return "Too large.";
    case INVALID: return "Invalid arguments";
    case STORE_REFUSED: return "Not stored.";
    case BAD_DELTA: return "Non-numeric server-side value for incr or decr";
    case UNKNOWN_COMMAND: return "Unknown command";
    case OUT_OF_MEMORY: return "Out of memory";
    case OK: break;
    }
    return "";
}

static void binary_begin(struct connection *c, enum status status, uint32_t extras_len, uint32_t key_len, uint32_t
    body_len,
                         uint64_t cas) {
    struct binary_header h = {.magic = 0x81, .opcode = c->header.opcode, .key_len =
        __builtin_bswap16((uint16_t)key_len),
                              .extras_len = (uint8_t)extras_len, .status = __builtin_bswap16((uint16_t)status),
                              .body_len = __builtin_bswap32(body_len), .opaque = c->header.opaque,
                              .cas = __builtin_bswap64(cas)};
    reply_begin();
    put(&h, sizeof h);
}

/* Errors are answered to quiet commands too. */
static void binary_say(struct connection *c, enum status status, const char *text, int32_t swallow) {
    binary_begin(c, status, 0, 0, (uint32_t)strlen(text), 0);
    put_text(text);
    reply_end(c);
    if (swallow > 0) c->swallow = (uint32_t)swallow;
}
static void binary_error(struct connection *c, enum status status, int32_t swallow) {
    binary_say(c, status, status_text(status), swallow);
}

static void binary_protocol_error(struct connection *c) {
    binary_error(c, INVALID, 0);
    c->closing = true;
}

static void binary_done(struct connection *c, uint64_t cas, const void *body, uint32_t len) {
    if (c->no_reply) return;
    binary_begin(c, OK, 0, 0, len, cas);
    put(body, len);
    reply_end(c);
}

static uint32_t read_be32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return __builtin_bswap32(value);
}
static uint64_t read_be64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return __builtin_bswap64(value);
}

static void binary_get(struct connection *c, uint8_t op, const uint8_t *extras, const uint8_t *key, uint32_t key_len) {
    bool touch = op == OP_TOUCH || op == OP_GAT || op == OP_GATK, with_key = op == OP_GETK || op == OP_GATK;
    struct item *it = item_get(key, key_len);
    stats.touches += touch;
    if (!it) {
        touch ? stats.touch_misses++ : stats.get_misses++;
        misses.value++;
        if (c->no_reply) return;
        if (!with_key) {
            binary_error(c, NO_ENTRY, 0);
            return;
        }
        binary_begin(c, NO_ENTRY, 0, key_len, key_len, 0);
        put(key, key_len);
        reply_end(c);
        return;
    }
    touch ? stats.touch_hits++ : stats.get_hits++;
    hits.value++;
    if (touch) it->expires = moment_of(read_be32(extras));
    uint32_t value_len = op == OP_TOUCH ? 0 : it->value_len - 2, shown = with_key ? key_len : 0;
    uint32_t client_flags = __builtin_bswap32(it->client_flags);
    binary_begin(c, OK, 4, shown, 4 + shown + value_len, it->cas);
    put(&client_flags, 4);
    put(key, shown);
    reply_body(it, item_value(it), value_len);
    reply_end(c);
}

static void binary_store(struct connection *c, enum how how, const uint8_t *extras, const uint8_t *key) {
    uint32_t key_len = c->header.key_len;
    int32_t value_len = (int32_t)(c->header.body_len - key_len - c->header.extras_len);
    uint32_t client_flags = extras ? read_be32(extras) : 0;
    struct item *it = item_new(key, key_len, client_flags, extras ? moment_of(read_be32(extras + 4)) : 0,
                               (int64_t)value_len + 2);
    if (!it) {
        if (size_allowed(key_len, client_flags, (int64_t)value_len + 2)) {
            binary_say(c, OUT_OF_MEMORY, "Out of memory allocating item", value_len);
        } else {
            binary_error(c, TOO_BIG, value_len);
        }
        struct item *old = how == SET ? item_find(key, key_len) : 0;
        if (old) item_unlink(old);
        return;
    }
    it->cas = c->header.cas;
    c->upload.item = it;
    c->upload.needed = (uint32_t)value_len;
    c->upload.how = it->cas && how != APPEND && how != PREPEND ? CAS : how;
    c->upload.no_reply = c->no_reply;
}

static void binary_complete(struct connection *c) {
    struct upload *u = &c->upload;
    struct item *it = u->item;
    uint64_t cas = 0;
    c->no_reply = u->no_reply;
    stats.sets++;
    memcpy(item_value(it) + it->value_len - 2, "\r\n", 2);
    switch (item_store(it, u->how, false, &cas)) {
    case STORED: binary_done(c, cas, "", 0); break;
    case EXISTS: binary_error(c, KEY_EXISTS, 0); break;
    case NOT_FOUND: binary_error(c, NO_ENTRY, 0); break;
    case NOT_STORED: binary_error(c, u->how == ADD ? KEY_EXISTS : u->how == REPLACE ? NO_ENTRY : STORE_REFUSED, 0);
    }
    upload_end(c);
}

static void binary_add(struct connection *c, bool up, const uint8_t *extras, const uint8_t *key, uint32_t key_len) {
    uint64_t value, cas = c->header.cas;
    uint32_t expiry = read_be32(extras + 16);
    struct item *it;
    enum added added = item_add(key, key_len, up, read_be64(extras), &cas, &value, &it);
    if (added == ADD_MISSING && expiry != 0xffffffff) {
        value = read_be64(extras + 8);
        it = item_number(key, key_len, moment_of(expiry), value);
        if (!it) {
            binary_say(c, OUT_OF_MEMORY, "Out of memory allocating new item", 0);
            return;
        }
        cas = it->cas;
        added = ADDED;
    }
    uint64_t wire = __builtin_bswap64(value);
    switch (added) {
    case ADDED: binary_done(c, cas, &wire, 8); break;
    case ADD_NOT_A_NUMBER: binary_error(c, BAD_DELTA, 0); break;
    case ADD_NO_MEMORY: binary_say(c, OUT_OF_MEMORY, "Out of memory incrementing value", 0); break;
    case ADD_WRONG_CAS: binary_error(c, KEY_EXISTS, 0); break;
    case ADD_MISSING:
        up ? stats.incr_misses++ : stats.decr_misses++;
        binary_error(c, NO_ENTRY, 0);
    }
}

static void binary_delete(struct connection *c, const uint8_t *key, uint32_t key_len) {
    struct item *it = item_find(key, key_len);
    if (!it) {
        stats.delete_misses++;
        binary_error(c, NO_ENTRY, 0);
    } else if (c->header.cas && c->header.cas != it->cas) {
        binary_error(c, KEY_EXISTS, 0);
    } else {
        stats.delete_hits++;
        item_unlink(it);
        binary_done(c, 0, "", 0);
    }
}

static bool begins(const uint8_t *key, uint32_t len, const char *text) {
    return len >= strlen(text) && memcmp(key, text, strlen(text)) == 0;
}

static void binary_stat(struct connection *c, const uint8_t *key, uint32_t key_len) {
    sheet_begin(true, c->header.opaque);
    if (begins(key, key_len, "reset")) {
        stats_clear();
        stat_text("", "");
    } else if (!stats_section(c, key, begins(key, key_len, "settings") ? 8 : key_len)) {
        binary_error(c, NO_ENTRY, 0);
        return;
    }
    if (!sheet_send(c)) binary_say(c, OUT_OF_MEMORY, "Out of memory generating stats", 0);
}

static void binary_flush(struct connection *c, const uint8_t *extras) {
    uint32_t delay = extras ? read_be32(extras) : 0;
    cache_flush(delay ? moment_of(delay) : now);
    stats.flushes++;
    binary_done(c, 0, "", 0);
}

/* The command that a quiet one is like. */
static uint8_t loud(uint8_t op) {
    switch (op) {
    case OP_GETQ: return OP_GET;
    case OP_GETKQ: return OP_GETK;
    case OP_GATQ: return OP_GAT;
    case OP_GATKQ: return OP_GATK;
    case OP_SETQ: case OP_ADDQ: case OP_REPLACEQ: case OP_DELETEQ: case OP_INCREMENTQ: case OP_DECREMENTQ: case
        OP_QUITQ:
    case OP_FLUSHQ: return (uint8_t)(op - OP_SETQ + OP_SET);
    case OP_APPENDQ: case OP_PREPENDQ: return (uint8_t)(op - OP_APPENDQ + OP_APPEND);
    default: return op;
    }
}

/* Carries out one command whose header, extras and key have come. */
static void binary_command(struct connection *c, const uint8_t *extras, const uint8_t *key) {
    const struct binary_header *h = &c->header;
    uint32_t extra = h->extras_len, keyed = h->key_len, body = h->body_len;
    if (keyed + extra > body) {
        binary_error(c, UNKNOWN_COMMAND, 0);
        c->closing = true;
        return;
    }
    if (keyed > KEY_MAX) {
        binary_protocol_error(c);
        return;
    }
    uint8_t op = loud(h->opcode);
    c->no_reply = op != h->opcode;
    bool empty = extra == 0 && keyed == 0 && body == 0, key_only = extra == 0 && keyed && body == keyed;
    bool good = true;
    switch (op) {
    case OP_VERSION:
        if ((good = empty)) binary_done(c, 0, VERSION, sizeof VERSION - 1);
        break;
    case OP_NOOP:
        if ((good = empty)) binary_done(c, 0, "", 0);
        break;
    case OP_QUIT:
        if ((good = empty)) {
            binary_done(c, 0, "", 0);
            c->closing = true;
        }
        break;
    case OP_FLUSH:
        if ((good = keyed == 0 && body == extra && (extra == 0 || extra == 4))) binary_flush(c, extra ? extras : 0);
        break;
    case OP_SET: case OP_ADD: case OP_REPLACE:
        if ((good = extra == 8 && keyed)) binary_store(c, op == OP_SET ? SET : op == OP_ADD ? ADD : REPLACE, extras,
            key);
        break;
    case OP_APPEND: case OP_PREPEND:
        if ((good = extra == 0 && keyed)) binary_store(c, op == OP_APPEND ? APPEND : PREPEND, 0, key);
        break;
    case OP_GET: case OP_GETK:
        if ((good = key_only)) binary_get(c, op, extras, key, keyed);
        break;
    case OP_TOUCH: case OP_GAT: case OP_GATK:
        if ((good = extra == 4 && keyed)) binary_get(c, op, extras, key, keyed);
        break;
    case OP_DELETE:
        if ((good = key_only)) binary_delete(c, key, keyed);
        break;
    case OP_INCREMENT: case OP_DECREMENT:
        if ((good = extra == 20 && keyed && body == keyed + extra)) binary_add(c, op == OP_INCREMENT, extras, key,
            keyed);
        break;
    case OP_STAT:
        if ((good = extra == 0)) binary_stat(c, key, keyed);
        break;
    case OP_SASL_LIST:
        if ((good = empty)) binary_error(c, UNKNOWN_COMMAND, 0);
        break;
    case OP_SASL_AUTH: case OP_SASL_STEP:
        if ((good = extra == 0 && keyed)) binary_error(c, UNKNOWN_COMMAND, (int32_t)(body - keyed));
        break;
    default: binary_error(c, UNKNOWN_COMMAND, (int32_t)body); /* also over what was read already, as clients know it */
    }
    if (!good) binary_protocol_error(c);
}

/* Deals with one command up to its value; returns its bytes, 0 = not all have come. */
static uint32_t binary_read(struct connection *c, const uint8_t *at, uint32_t len) {
    struct binary_header *h = &c->header;
    if (len < sizeof *h) return 0;
    memcpy(h, at, sizeof *h);
    h->key_len = __builtin_bswap16(h->key_len);
    h->body_len = __builtin_bswap32(h->body_len);
    h->cas = __builtin_bswap64(h->cas);
    uint32_t whole = (uint32_t)sizeof *h + h->extras_len + h->key_len;
    if (h->magic != BINARY_REQUEST || (whole > BINARY_READ_MAX && len >= BINARY_READ_MAX)) {
        c->closing = true;
        return 0;
    }
    if (len < whole) return 0;
    c->last_command = now;
    const uint8_t *extras = at + sizeof *h;
    binary_command(c, extras, extras + h->extras_len);
    return whole;
}

#endif
