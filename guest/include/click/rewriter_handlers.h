/* Handlers that all rewriters have, included by their templates: table_size, size, capacity, mapping_failures (read). */
static void ME(read_table_size)(click_text *out) {
    click_nat_reap(&ME(nat));
    click_text_unsigned(out, ME(nat).size);
}

static void ME(read_size)(click_text *out) { ME(read_table_size)(out); }
static void ME(read_capacity)(click_text *out) { click_text_unsigned(out, CAPACITY); }
static void ME(read_mapping_failures)(click_text *out) { click_text_unsigned(out, ME(nat).failures); }
