/* rewriter.h: what all rewriters have, included by their templates behind ME(rewrite): ME(hand_on), and the handlers
 * table_size, size, capacity, mapping_failures (read). */

/* Of a mapping's key (0: there is none): the packet is rewritten and leaves where the mapping says, or as ME(pass) says. */
static void ME(hand_on)(uint32_t port, uint32_t key, click_packet *p, uint8_t *ip) {
    if (key) {
        click_mapping *m = &ME(mappings)[(key - 1) / 2];
        const uint32_t direction = (key - 1) & 1;
        ME(rewrite)(m, direction, p, ip);
        OUT(m->output[direction], p);
    } else if (ME(pass)(port) >= 0) {
        OUT((uint32_t)ME(pass)(port), p);
    } else {
        click_drop(p);
    }
}

static void ME(read_table_size)(click_text *out) {
    click_nat_reap(&ME(nat));
    click_text_unsigned(out, ME(nat).size);
}

static void ME(read_size)(click_text *out) { ME(read_table_size)(out); }
static void ME(read_capacity)(click_text *out) { click_text_unsigned(out, CAPACITY); }
static void ME(read_mapping_failures)(click_text *out) { click_text_unsigned(out, ME(nat).failures); }
