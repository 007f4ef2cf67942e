/* blocks.h: the memory for bytes under way, in blocks of 1 KiB that all connections of the FWP share, and the two things that
 * are made of them: a queue of bytes that have not been acknowledged, and a store of bytes that the service has not had yet.
 *
 * A block that is let go of is the next to be taken, so little memory is touched while little is under way. */
#ifndef TCP_BLOCKS_H
#define TCP_BLOCKS_H

/* What a service hands over in one answer always finds this much, because its input waits until it is there. */
#define TCP_RESERVED_BLOCKS (EDGEOS_SLOT_SIZE / TCP_BLOCK_BYTES + 1)

static inline uint32_t tcp_unused_blocks(void) { return TCP_BLOCKS - tcp.used_blocks; }

/* An empty block; TCP_NO_BLOCK when there is none. */
static uint16_t tcp_take_block(void) {
    uint16_t taken;
    if (tcp.free_block) {
        taken = (uint16_t)(tcp.free_block - 1);
        tcp.free_block = (uint16_t)(tcp.blocks[taken].next + 1);
    } else if (tcp.fresh_blocks < TCP_BLOCKS) {
        taken = (uint16_t)(TCP_BLOCKS - ++tcp.fresh_blocks);
    } else {
        return TCP_NO_BLOCK;
    }
    tcp.used_blocks++;
    tcp.blocks[taken].at = tcp.blocks[taken].len = 0;
    tcp.blocks[taken].next = TCP_NO_BLOCK;
    return taken;
}

static void tcp_free(uint16_t block) {
    tcp.blocks[block].next = (uint16_t)(tcp.free_block - 1); /* TCP_NO_BLOCK when there is none */
    tcp.free_block = (uint16_t)(block + 1);
    tcp.used_blocks--;
}

/* ---- A queue: bytes in order, added behind, taken away in front ---- */

static const struct tcp_queue tcp_empty_queue = {0, TCP_NO_BLOCK, TCP_NO_BLOCK};

/* Adds as many bytes as there are blocks for beyond `spare`; returns how many. */
static uint32_t tcp_queue_add(struct tcp_queue *q, const uint8_t *data, uint32_t len, uint32_t spare) {
    uint32_t added = 0;
    while (added < len) {
        struct tcp_block *b = q->last == TCP_NO_BLOCK ? NULL : &tcp.blocks[q->last];
        if (!b || b->at + b->len == TCP_BLOCK_BYTES) {
            const uint16_t taken = tcp_unused_blocks() > spare ? tcp_take_block() : TCP_NO_BLOCK;
            if (taken == TCP_NO_BLOCK) break;
            if (b) b->next = taken;
            else q->first = taken;
            q->last = taken;
            b = &tcp.blocks[taken];
        }
        const uint32_t room = TCP_BLOCK_BYTES - b->at - b->len, part = len - added < room ? len - added : room;
        __builtin_memcpy(b->bytes + b->at + b->len, data + added, part);
        b->len += (uint16_t)part;
        added += part;
    }
    q->len += added;
    return added;
}

/* Takes away the first `count` bytes, which are there. */
static void tcp_queue_drop(struct tcp_queue *q, uint32_t count) {
    q->len -= count;
    while (q->first != TCP_NO_BLOCK) {
        struct tcp_block *b = &tcp.blocks[q->first];
        if (count < b->len) {
            b->at += (uint16_t)count;
            b->len -= (uint16_t)count;
            return;
        }
        count -= b->len;
        const uint16_t next = b->next;
        tcp_free(q->first);
        q->first = next;
    }
    q->last = TCP_NO_BLOCK;
}

/* Copies `len` bytes from `offset` on, which are there. */
static void tcp_queue_copy(const struct tcp_queue *q, uint32_t offset, uint8_t *to, uint32_t len) {
    const struct tcp_block *b = len ? &tcp.blocks[q->first] : NULL;
    while (len) {
        if (offset >= b->len) {
            offset -= b->len;
        } else {
            const uint32_t part = len < b->len - offset ? len : b->len - offset;
            __builtin_memcpy(to, b->bytes + b->at + offset, part);
            to += part;
            len -= part;
            offset = 0;
        }
        if (len) b = &tcp.blocks[b->next];
    }
}

/* ---- A store: pieces of a stream, each in a block, in the order of their numbers and without overlap ---- */

#define TCP_STORED_BLOCKS_MAX (TCP_BLOCKS / 2) /* the rest is for queues, which empty by themselves */

static inline int32_t tcp_distance(uint32_t from, uint32_t to) { return (int32_t)(to - from); }

/* Puts bytes that no piece has behind the piece `*link` leads from, in new blocks. Returns false when there is no room for all. */
static bool tcp_store_gap(uint16_t *link, struct tcp_block *before, uint32_t seq, const uint8_t *data, uint32_t len) {
    while (len) {
        if (before && before->seq + before->len == seq && before->len < TCP_BLOCK_BYTES) {
            const uint32_t room = TCP_BLOCK_BYTES - before->len, part = len < room ? len : room;
            __builtin_memcpy(before->bytes + before->len, data, part);
            before->len += (uint16_t)part;
            seq += part;
            data += part;
            len -= part;
            continue;
        }
        const uint16_t taken = tcp.stored_blocks < TCP_STORED_BLOCKS_MAX && tcp_unused_blocks() > TCP_RESERVED_BLOCKS
                                   ? tcp_take_block()
                                   : TCP_NO_BLOCK;
        if (taken == TCP_NO_BLOCK) return false;
        tcp.stored_blocks++;
        struct tcp_block *b = &tcp.blocks[taken];
        b->seq = seq;
        b->next = *link;
        *link = taken;
        link = &b->next;
        before = b;
    }
    return true;
}

/* Adds what is new of these bytes, as far as there is room. */
static void tcp_store_add(uint16_t *first, uint32_t seq, const uint8_t *data, uint32_t len) {
    uint16_t *link = first;
    struct tcp_block *before = NULL;
    while (len) {
        struct tcp_block *b = *link == TCP_NO_BLOCK ? NULL : &tcp.blocks[*link];
        const int32_t gap = b ? tcp_distance(seq, b->seq) : INT32_MAX;
        if (gap > 0) { /* bytes in front of the next piece */
            const uint32_t part = len < (uint32_t)gap ? len : (uint32_t)gap;
            if (!tcp_store_gap(link, before, seq, data, part)) return;
            seq += part;
            data += part;
            len -= part;
            if (len == 0) return;
        }
        /* Past the piece, whether it was there or has just been made in front of `b`. */
        while (*link != TCP_NO_BLOCK) {
            before = &tcp.blocks[*link];
            const int32_t known = tcp_distance(seq, before->seq + before->len);
            if (tcp_distance(seq, before->seq) > 0) break;
            if (known > 0) {
                const uint32_t part = len < (uint32_t)known ? len : (uint32_t)known;
                seq += part;
                data += part;
                len -= part;
            }
            link = &before->next;
        }
    }
}

/* Up to which number the stream is whole, from `seq` on. */
static uint32_t tcp_store_whole(uint16_t first, uint32_t seq) {
    for (uint16_t at = first; at != TCP_NO_BLOCK; at = tcp.blocks[at].next) {
        const struct tcp_block *b = &tcp.blocks[at];
        if (tcp_distance(seq, b->seq) > 0) break;
        if (tcp_distance(seq, b->seq + b->len) > 0) seq = b->seq + b->len;
    }
    return seq;
}

/* Where the last piece ends, or `seq` if that is further. */
static uint32_t tcp_store_end(uint16_t first, uint32_t seq) {
    for (uint16_t at = first; at != TCP_NO_BLOCK; at = tcp.blocks[at].next) {
        const uint32_t end = tcp.blocks[at].seq + tcp.blocks[at].len;
        if (tcp_distance(seq, end) > 0) seq = end;
    }
    return seq;
}

static void tcp_store_drop_first(uint16_t *first) {
    const uint16_t block = *first;
    *first = tcp.blocks[block].next;
    tcp.stored_blocks--;
    tcp_free(block);
}

#endif /* TCP_BLOCKS_H */
