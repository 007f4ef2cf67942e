/* statistics.h: the answers to `stats`, for both protocols. */
#ifndef MEMCACHED_STATISTICS_H
#define MEMCACHED_STATISTICS_H

#include "connection.h"

#define VERSION "1.6.18"
#define PROTOCOL_STAT 0x10

/* The answer under construction; `failed` when memory ran out. */
static struct {
    uint8_t *bytes;
    uint32_t len, capacity, opaque;
    bool binary, failed;
} sheet;

static void sheet_put(const void *from, uint32_t len) {
    if (sheet.len + len > sheet.capacity) {
        uint32_t capacity = sheet.capacity ? sheet.capacity * 2 : 1024;
        uint8_t *larger = sheet.failed ? 0 : take_memory(capacity);
        if (!larger) {
            sheet.failed = true;
            return;
        }
        memcpy(larger, sheet.bytes, sheet.len);
        arena_give(sheet.bytes);
        sheet.bytes = larger;
        sheet.capacity = capacity;
    }
    memcpy(sheet.bytes + sheet.len, from, len);
    sheet.len += len;
}

static void sheet_text(const char *text) { sheet_put(text, (uint32_t)strlen(text)); }

static void stat_text(const char *name, const char *value) {
    uint32_t name_len = (uint32_t)strlen(name), value_len = (uint32_t)strlen(value);
    if (sheet.binary) {
        struct binary_header h = {.magic = 0x81, .opcode = PROTOCOL_STAT, .key_len =
            __builtin_bswap16((uint16_t)name_len),
                                  .body_len = __builtin_bswap32(name_len + value_len), .opaque = sheet.opaque};
        sheet_put(&h, sizeof h);
        sheet_put(name, name_len);
        sheet_put(value, value_len);
    } else if (!name_len) {
        sheet_text("END\r\n");
    } else {
        sheet_text("STAT ");
        sheet_text(name);
        if (value_len) sheet_text(" ");
        sheet_text(value);
        sheet_text("\r\n");
    }
}

static void stat_number(const char *name, uint64_t value) {
    uint8_t digits[21];
    *write_u64(digits, value) = 0;
    stat_text(name, (const char *)digits);
}

struct stat_line {
    const char *name;
    uint64_t value;
};

static void stat_lines(const struct stat_line *lines, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) stat_number(lines[i].name, lines[i].value);
}
#define STAT_LINES(...) \
    do { \
        const struct stat_line lines[] = {__VA_ARGS__}; \
        stat_lines(lines, sizeof lines / sizeof *lines); \
    } while (0)

/* Bytes that the cache may have for all it holds. */
static uint64_t memory_limit(void) { return arena.limit ? arena.limit : arena.refused ? arena_total() : 64u << 20; }

static void stats_general(void) {
    STAT_LINES({"pid", 1}, {"uptime", now - 60}, {"time", started_at + now});
    stat_text("version", VERSION);
    stat_text("libevent", "edgeos");
    stat_number("pointer_size", 32);
    stat_text("rusage_user", "0.000000");
    stat_text("rusage_system", "0.000000");
    STAT_LINES({"max_connections", 1024}, {"curr_connections", connection_count},
               {"total_connections", stats.total_connections}, {"rejected_connections", 0},
               {"connection_structures", connections_most}, {"response_obj_oom", 0}, {"response_obj_count", 1},
               {"response_obj_bytes", sizeof reply}, {"read_buf_count", 0}, {"read_buf_bytes", 0},
               {"read_buf_bytes_free", 0}, {"read_buf_oom", 0}, {"reserved_fds", 0});
    STAT_LINES({"cmd_get", stats.get_hits + stats.get_misses}, {"cmd_set", stats.sets}, {"cmd_flush", stats.flushes},
               {"cmd_touch", stats.touches}, {"cmd_meta", stats.metas}, {"get_hits", stats.get_hits},
               {"get_misses", stats.get_misses}, {"get_expired", stats.get_expired}, {"get_flushed", stats.get_flushed},
               {"delete_misses", stats.delete_misses}, {"delete_hits", stats.delete_hits},
               {"incr_misses", stats.incr_misses}, {"incr_hits", stats.incr_hits}, {"decr_misses", stats.decr_misses},
               {"decr_hits", stats.decr_hits}, {"cas_misses", stats.cas_misses}, {"cas_hits", stats.cas_hits},
               {"cas_badval", stats.cas_badval}, {"touch_hits", stats.touch_hits}, {"touch_misses", stats.touch_misses},
               {"store_too_large", stats.too_large}, {"store_no_memory", stats.no_memory}, {"auth_cmds", 0},
               {"auth_errors", 0}, {"bytes_read", stats.bytes_read}, {"bytes_written", stats.bytes_written});
    uint32_t power = 0;
    while (cache.mask >> power) power++;
    STAT_LINES({"limit_maxbytes", memory_limit()}, {"accepting_conns", 1}, {"listen_disabled_num", 0},
               {"time_in_listen_disabled_us", 0}, {"threads", 1}, {"conn_yields", 0}, {"hash_power_level", power},
               {"hash_bytes", (uint64_t)(cache.mask + 1) * sizeof *cache.buckets}, {"hash_is_expanding", cache.old !=
                   0},
               {"malloc_fails", 0}, {"log_worker_dropped", 0}, {"log_worker_written", 0}, {"log_watcher_skipped", 0},
               {"log_watcher_sent", 0}, {"log_watchers", 0}, {"unexpected_napi_ids", 0}, {"round_robin_fallback", 0});
    STAT_LINES({"bytes", cache.bytes}, {"curr_items", cache.count}, {"total_items", stats.total_items},
               {"slab_global_page_pool", 0}, {"expired_unfetched", stats.expired_unfetched},
               {"evicted_unfetched", stats.evicted_unfetched}, {"evicted_active", stats.evicted_active},
               {"evictions", stats.evictions}, {"reclaimed", stats.reclaimed}, {"crawler_reclaimed", 0},
               {"crawler_items_checked", 0}, {"lrutail_reflocked", 0});
}

static void stats_settings(void) {
    STAT_LINES({"maxbytes", memory_limit()}, {"maxconns", 1024}, {"tcpport", 0}, {"udpport", 0});
    stat_text("inter", "NULL");
    STAT_LINES({"verbosity", settings.verbosity}, {"oldest", cache.flushed_until});
    stat_text("evictions", settings.evict ? "on" : "off");
    stat_text("domain_socket", "NULL");
    stat_text("umask", "700");
    stat_text("shutdown_command", "no");
    stat_text("growth_factor", "1.00");
    STAT_LINES({"chunk_size", 8}, {"num_threads", 1}, {"num_threads_per_udp", 1});
    stat_text("stat_key_prefix", ":");
    stat_text("detail_enabled", "no");
    stat_number("reqs_per_event", 0);
    stat_text("cas_enabled", "yes");
    stat_number("tcp_backlog", 0);
    stat_text("binding_protocol", "auto-negotiate");
    stat_text("auth_enabled_sasl", "no");
    stat_text("auth_enabled_ascii", "no");
    stat_number("item_size_max", settings.item_size_max);
    stat_text("maxconns_fast", "yes");
    stat_number("hashpower_init", 5);
    stat_text("slab_reassign", "no");
    stat_number("slab_automove", 0);
    stat_text("lru_crawler", "no");
    stat_text("flush_enabled", "yes");
    stat_text("dump_enabled", "yes");
    stat_text("hash_algorithm", "edgeos");
    stat_text("lru_maintainer_thread", "no");
    stat_text("lru_segmented", "no");
    stat_text("temp_lru", "no");
    stat_number("idle_timeout", 0);
    stat_text("track_sizes", cache.sizes ? "yes" : "no");
    stat_text("inline_ascii_response", "no");
}

/* There are no slab classes: everything is in one, number 1. */
static void stats_items(void) {
    if (cache.count) {
        STAT_LINES({"items:1:number", cache.count}, {"items:1:age", now - cache.oldest->used_at},
                   {"items:1:mem_requested", cache.bytes}, {"items:1:evicted", stats.evictions},
                   {"items:1:evicted_nonzero", stats.evicted_nonzero}, {"items:1:evicted_time", stats.evicted_age},
                   {"items:1:outofmemory", stats.out_of_memory}, {"items:1:tailrepairs", 0},
                   {"items:1:reclaimed", stats.reclaimed}, {"items:1:expired_unfetched", stats.expired_unfetched},
                   {"items:1:evicted_unfetched", stats.evicted_unfetched},
                   {"items:1:evicted_active", stats.evicted_active}, {"items:1:crawler_reclaimed", 0},
                   {"items:1:crawler_items_checked", 0}, {"items:1:lrutail_reflocked", 0});
    }
    stat_text("", "");
}

/* A chunk is 8 bytes, the grain of the arena; a page is one of WebAssembly's. */
static void stats_slabs(void) {
    uint64_t chunks = arena_total() / 8, used = arena.used / 8;
    if (cache.count) {
        STAT_LINES({"1:chunk_size", 8}, {"1:chunks_per_page", ARENA_PAGE / 8},
                   {"1:total_pages", (arena_total() + ARENA_PAGE - 1) / ARENA_PAGE}, {"1:total_chunks", chunks},
                   {"1:used_chunks", used}, {"1:free_chunks", chunks - used}, {"1:free_chunks_end", 0},
                   {"1:get_hits", stats.get_hits}, {"1:cmd_set", stats.sets}, {"1:delete_hits", stats.delete_hits},
                   {"1:incr_hits", stats.incr_hits}, {"1:decr_hits", stats.decr_hits}, {"1:cas_hits", stats.cas_hits},
                   {"1:cas_badval", stats.cas_badval}, {"1:touch_hits", stats.touch_hits});
    }
    STAT_LINES({"active_slabs", cache.count != 0}, {"total_malloced", arena_total()});
    stat_text("", "");
}

static void stats_sizes(void) {
    if (!cache.sizes) stat_text("sizes_status", "disabled");
    for (uint32_t i = 0; cache.sizes && i <= settings.item_size_max / 32; i++) {
        uint8_t name[21];
        *write_u64(name, (uint64_t)i * 32) = 0;
        if (cache.sizes[i]) stat_number((const char *)name, cache.sizes[i]);
    }
    stat_text("", "");
}

static void stats_sizes_enable(bool enable) {
    uint32_t bytes = (settings.item_size_max / 32 + 2) * 4;
    if (!enable) {
        arena_give(cache.sizes);
        cache.sizes = 0;
    } else if (!cache.sizes && (cache.sizes = take_memory(bytes))) {
        memset(cache.sizes, 0, bytes);
        cache.sizes_since = next_cas();
    }
    stat_text("sizes_status", !enable ? "disabled" : cache.sizes ? "enabled" : "error");
    if (enable && !cache.sizes) stat_text("sizes_error", "no_memory");
    stat_text("", "");
}

static uint8_t *write_address(uint8_t *at, const edgeos_endpoints *e, const uint8_t *address, uint16_t port) {
    if (e->family == 0) {
        memcpy(at, "unix:<AF 1>", 11);
        return at + 11;
    }
    memcpy(at, e->transport == 17 ? "udp" : "tcp", 3);
    at += 3;
    if (e->family == 6) *at++ = '6';
    *at++ = ':';
    if (e->family == 6) *at++ = '[';
    for (int i = e->family == 6 ? 0 : 12; i < 16; i += e->family == 6 ? 2 : 1) {
        if (i > (e->family == 6 ? 0 : 12)) *at++ = e->family == 6 ? ':' : '.';
        if (e->family != 6) {
            at = write_u64(at, address[i]);
            continue;
        }
        uint32_t group = (uint32_t)address[i] << 8 | address[i + 1];
        bool begun = false;
        for (int shift = 12; shift >= 0; shift -= 4) {
            uint32_t digit = group >> shift & 15;
            if (digit || begun || shift == 0) *at++ = (uint8_t)"0123456789abcdef"[digit];
            begun |= digit != 0;
        }
    }
    if (e->family == 6) *at++ = ']';
    *at++ = ':';
    return write_u64(at, port);
}

static void stats_connections(const struct connection *asking) {
    for (uint32_t i = 0; i < CONNECTION_BUCKETS; i++) {
        for (struct connection *c = connections[i]; c; c = c->next) {
            uint8_t name[48], text[80];
            const char *const fields[4] = {":addr", ":listen_addr", ":state", ":secs_since_last_cmd"};
            for (int f = 0; f < 4; f++) {
                strcpy((char *)write_u64(name, c->flow), fields[f]);
                if (f == 0) *write_address(text, &c->ends, c->ends.peer, c->ends.peer_port) = 0;
                if (f == 1) *write_address(text, &c->ends, c->ends.local, c->ends.local_port) = 0;
                if (f == 2) strcpy((char *)text, c == asking ? "conn_parse_cmd" : c->unsent ? "conn_mwrite" :
                    "conn_read");
                if (f == 3) *write_u64(text, now - c->last_command) = 0;
                stat_text((const char *)name, (const char *)text);
            }
        }
    }
}

/* `stats cachedump`: keys with sizes, newest first; 0 = all. */
static void stats_cachedump(uint32_t class, uint32_t limit) {
    uint32_t shown = 0;
    for (struct item *it = class == 1 ? cache.newest : 0; it && (!limit || shown < limit) && !sheet.failed; it =
        it->older) {
        if (it->marks & MARK_BINARY_KEY) continue;
        uint8_t digits[21];
        sheet_text("ITEM ");
        sheet_put(it->bytes, it->key_len);
        sheet_text(" [");
        sheet_put(digits, (uint32_t)(write_u64(digits, it->value_len - 2) - digits));
        sheet_text(" b; ");
        sheet_put(digits, (uint32_t)(write_u64(digits, it->expires ? it->expires + started_at : 0) - digits));
        sheet_text(" s]\r\n");
        shown++;
    }
    sheet_text("END\r\n");
}

static void stats_clear(void) { memset(&stats, 0, sizeof stats); }

static void sheet_begin(bool binary, uint32_t opaque) {
    memset(&sheet, 0, sizeof sheet);
    sheet.binary = binary;
    sheet.opaque = opaque;
}

/* Makes the section of this name; false: there is none. */
static bool stats_section(struct connection *c, const uint8_t *name, uint32_t len) {
#define IS(text) (len == sizeof(text) - 1 && memcmp(name, text, len) == 0)
    if (len == 0) {
        stats_general();
        stat_text("", "");
    } else if (IS("settings")) {
        stats_settings();
        stat_text("", "");
    } else if (IS("conns")) {
        stats_connections(c);
        stat_text("", "");
    } else if (IS("items")) {
        stats_items();
    } else if (IS("slabs")) {
        stats_slabs();
    } else if (IS("sizes")) {
        stats_sizes();
    } else if (IS("sizes_enable") || IS("sizes_disable")) {
        stats_sizes_enable(IS("sizes_enable"));
    } else {
        return false;
    }
    return true;
#undef IS
}

/* Sends what was made. False: memory had run out. */
static bool sheet_send(struct connection *c) {
    bool whole = !sheet.failed;
    if (whole) {
        reply_begin();
        reply_body(0, sheet.bytes, sheet.len);
        reply_end(c);
    }
    arena_give(sheet.bytes);
    sheet.bytes = 0;
    return whole;
}

#endif
