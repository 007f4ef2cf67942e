/* state.h: all that TCP knows in one FWP, and how it lies in memory.
 *
 * With many FWPs each page of 4 KiB that one touches counts, as memory and as a miss in the caches. So what a connection with
 * little under way needs lies together: the last blocks, which are taken first, and behind them the places of connections,
 * which are taken from the first on. */
#ifndef TCP_STATE_H
#define TCP_STATE_H

#define TCP_PAGE 4096u

#define TCP_BLOCK_BYTES 1008u
#define TCP_BLOCKS (EDGEOS_TCP_MEMORY / 1024u)
#define TCP_NO_BLOCK 0xffffu

struct tcp_block {
    uint32_t seq; /* of the first byte; in a store */
    uint16_t at;  /* where the first byte lies; in a queue */
    uint16_t len;
    uint16_t next;
    uint16_t reserved[3];
    uint8_t bytes[TCP_BLOCK_BYTES];
};
_Static_assert(sizeof(struct tcp_block) == 1024, "EDGEOS_TCP_MEMORY is counted in them");

/* Bytes in order, added behind, taken away in front. */
struct tcp_queue {
    uint32_t len;
    uint16_t first, last; /* TCP_NO_BLOCK: it is empty */
};

enum tcp_state {
    TCP_OPENING, /* SYN-RECEIVED */
    TCP_OPEN,    /* from ESTABLISHED on; the flags below tell how far either side has ended */
    TCP_OVER     /* TIME-WAIT */
};

struct tcp_connection {
    uint64_t flow;      /* as the service knows it */
    uint64_t host_flow; /* as the host names it now */
    uint64_t deadline_ns; /* when its timer runs out; 0: it has none */

    /* What the service sends; una, next and sent are SND.UNA, SND.NXT and the highest SND.NXT ever. */
    uint32_t una, next, sent;
    uint32_t window, window_seq, window_ack, window_max;
    struct tcp_queue queue; /* from una on, but for SYN and FIN */

    /* What comes; received is RCV.NXT, edge the end of the window that was offered. */
    uint32_t received, delivered, edge;
    uint32_t fin; /* number of the peer's FIN, once fin_known */
    uint16_t stored;

    uint16_t mss;
    uint8_t state;
    uint8_t scale;
    uint8_t tries;
    uint8_t backoff;
    uint8_t duplicates;

    bool finishing : 1;  /* the service sends no more; a FIN ends the queue */
    bool fin_acked : 1;
    bool fin_known : 1;
    bool peer_done : 1;  /* all up to its FIN has come */
    bool told_half : 1;
    bool abandoned : 1;  /* the service hears no more of it */
    bool wants_room : 1;
    bool ack_due : 1;
    bool repeat : 1;     /* the first segment is sent again */
    bool recovering : 1; /* RFC 6582 */
    bool refused : 1;    /* the host had no room */
    bool lasts : 1;      /* our FIN left before the peer's came: TIME-WAIT is ours */

    /* Congestion and time: RFC 5681, RFC 6298. */
    uint32_t congestion, threshold, recover;
    uint32_t srtt_us, variation_us, rto_ms;
    uint32_t timed; /* the number that ends the segment whose time is taken */
    uint64_t timed_ns; /* when it was sent; 0: none is timed */

    struct tcp_headers headers;
};

static struct tcp_memory {
    uint8_t gap[TCP_PAGE / 2]; /* so that a page ends amid what is used most */
    struct tcp_block blocks[TCP_BLOCKS];
    uint16_t free_block;   /* the first of those that were let go of, from 1 on; 0: none */
    uint16_t fresh_blocks; /* so many were ever taken, from the last on */
    uint16_t used_blocks;
    uint16_t stored_blocks; /* of them, those in stores */
    uint32_t connection_count;
    uint64_t dirty[(EDGEOS_TCP_CONNECTIONS + 63) / 64]; /* connections that may have something to send */
    uint64_t flows[EDGEOS_TCP_CONNECTIONS];             /* of each place, 0: free */
    struct tcp_connection connections[EDGEOS_TCP_CONNECTIONS];
} tcp __attribute__((aligned(TCP_PAGE)));
_Static_assert(offsetof(struct tcp_memory, free_block) % 1024 == 0, "blocks and what follows meet within a page");

#endif /* TCP_STATE_H */
