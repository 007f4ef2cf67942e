/* congestion.h: how much may be under way (RFC 5681, RFC 6582), and how long to wait for its acknowledgement (RFC 6298). */
#ifndef TCP_CONGESTION_H
#define TCP_CONGESTION_H

#define TCP_BACKOFF_MAX 8u
#define TCP_MSS_CAUTIOUS 536u /* where larger segments do not seem to arrive */

static void tcp_congestion_start(struct tcp_connection *c) {
    c->congestion = 10u * c->mss; /* RFC 6928 */
    if (c->congestion > 14600) c->congestion = 2u * c->mss > 14600 ? 2u * c->mss : 14600;
    c->threshold = UINT32_MAX;
    c->rto_ms = TCP_RTO_FIRST_MS;
    c->recover = c->una;
}

static void tcp_take_time(struct tcp_connection *c) {
    const uint64_t took_ns = tcp_now - c->timed_ns;
    c->timed_ns = 0;
    if (took_ns > (uint64_t)TCP_RTO_MAX_MS * TCP_MS) return; /* the clock was set */
    const uint32_t rtt = (uint32_t)(took_ns / 1000u);
    if (c->srtt_us == 0) {
        c->srtt_us = rtt ? rtt : 1;
        c->variation_us = rtt / 2;
    } else {
        const uint32_t off = rtt > c->srtt_us ? rtt - c->srtt_us : c->srtt_us - rtt;
        c->variation_us += off / 4 - c->variation_us / 4;
        c->srtt_us += rtt / 8 - c->srtt_us / 8;
    }
    const uint32_t rto = (c->srtt_us + 4 * c->variation_us) / 1000u + 1;
    c->rto_ms = rto < TCP_RTO_MIN_MS ? TCP_RTO_MIN_MS : tcp_smaller(rto, TCP_RTO_MAX_MS);
}

static void tcp_halve(struct tcp_connection *c) {
    const uint32_t under_way = c->sent - c->una, half = under_way / 2;
    c->threshold = half < 2u * c->mss ? 2u * c->mss : half;
    c->recover = c->sent;
}

/* So many new bytes were acknowledged, and una is up to date. */
static void tcp_congestion_acked(struct tcp_connection *c, uint32_t acked) {
    c->duplicates = 0;
    if (tcp_distance(c->recover, c->una) > 0 && !c->recovering) c->recover = c->una; /* or numbers would come round to it */
    if (c->recovering && tcp_distance(c->una, c->recover) > 0) { /* the next hole */
        c->repeat = true;
        c->congestion -= tcp_smaller(acked, c->congestion - tcp_smaller(c->congestion, c->mss));
        c->congestion += c->mss;
        return;
    }
    if (c->recovering) {
        c->recovering = false;
        c->congestion = c->threshold;
    } else if (c->congestion < c->threshold) {
        c->congestion += tcp_smaller(acked, c->mss);
    } else {
        const uint32_t more = (uint32_t)((uint64_t)c->mss * c->mss / c->congestion);
        c->congestion += more ? more : 1;
    }
    c->congestion = tcp_smaller(c->congestion, 16 * TCP_WINDOW_MAX);
}

static void tcp_congestion_duplicate(struct tcp_connection *c) {
    if (c->recovering) {
        c->congestion += c->mss;
        return;
    }
    if (c->duplicates < 3) c->duplicates++;
    if (c->duplicates < 3 || tcp_distance(c->recover, c->una) < 0) return;
    tcp_halve(c);
    c->congestion = c->threshold + 3u * c->mss;
    c->recovering = true;
    c->repeat = true;
    c->timed_ns = 0;
}

/* Nothing was acknowledged in time: all of it is sent again, slowly at first. */
static void tcp_congestion_timeout(struct tcp_connection *c) {
    if (c->tries <= 1) tcp_halve(c);
    c->congestion = c->mss;
    c->next = c->una;
    c->recovering = false;
    c->duplicates = 0;
    c->timed_ns = 0; /* which of the two is acknowledged cannot be told */
    if (c->backoff < TCP_BACKOFF_MAX) c->backoff++;
    if (c->tries >= 3 && c->mss > TCP_MSS_CAUTIOUS) c->mss = TCP_MSS_CAUTIOUS;
}

/* The window is still closed, which is no sign of congestion. */
static void tcp_congestion_closed(struct tcp_connection *c) {
    c->next = c->una;
    c->timed_ns = 0;
    if (c->backoff < TCP_BACKOFF_MAX) c->backoff++;
}

/* How far from una on may be sent. Two more segments may go on the first two duplicates (RFC 3042). */
static inline uint32_t tcp_allowed(const struct tcp_connection *c) {
    const uint32_t limited = c->recovering ? 0 : tcp_smaller(c->duplicates, 2) * c->mss;
    return tcp_smaller(c->congestion + limited, c->window);
}

#endif /* TCP_CONGESTION_H */
