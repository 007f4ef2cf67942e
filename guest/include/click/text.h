/* text.h: what handlers read and write. A click_text keeps what fits and leaves the rest out; it never writes beyond. */
#ifndef CLICK_TEXT_H
#define CLICK_TEXT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct click_text {
    char *data;
    uint32_t len;
    uint32_t capacity;
} click_text;

static inline void click_text_bytes(click_text *out, const void *data, uint32_t len) {
    if (len > out->capacity - out->len) len = out->capacity - out->len;
    if (len) __builtin_memcpy(out->data + out->len, data, len);
    out->len += len;
}

static inline void click_text_char(click_text *out, char c) { click_text_bytes(out, &c, 1); }

static inline void click_text_string(click_text *out, const char *text) {
    click_text_bytes(out, text, (uint32_t)__builtin_strlen(text));
}

static inline void click_text_unsigned(click_text *out, uint64_t value) {
    char digits[20];
    uint32_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    click_text_bytes(out, digits + at, (uint32_t)sizeof digits - at);
}

static inline void click_text_signed(click_text *out, int64_t value) {
    if (value < 0) click_text_char(out, '-');
    click_text_unsigned(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

static inline void click_text_bool(click_text *out, bool value) { click_text_string(out, value ? "true" : "false"); }

/* A fixed-point number: `value` in units of 10 to the power of -`decimals`. */
static inline void click_text_decimal(click_text *out, uint64_t value, uint32_t decimals) {
    uint64_t unit = 1;
    for (uint32_t i = 0; i < decimals; i++) unit *= 10;
    click_text_unsigned(out, value / unit);
    if (decimals) click_text_char(out, '.');
    for (value %= unit; decimals--; value %= unit) {
        unit /= 10;
        click_text_char(out, (char)('0' + value / unit));
    }
}

static inline void click_text_hex(click_text *out, const uint8_t *data, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        click_text_char(out, "0123456789abcdef"[data[i] >> 4]);
        click_text_char(out, "0123456789abcdef"[data[i] & 15]);
    }
}

/* An address as it lies in a packet. */
static inline void click_text_ip4(click_text *out, uint32_t address) {
    for (uint32_t i = 0; i < 4; i++) {
        if (i) click_text_char(out, '.');
        click_text_unsigned(out, address >> (8 * i) & 255);
    }
}

static inline void click_text_ether(click_text *out, const uint8_t *address) {
    for (uint32_t i = 0; i < 6; i++) {
        if (i) click_text_char(out, ':');
        click_text_hex(out, address + i, 1);
    }
}

/* The text without the spaces around it. */
static inline void click_trim(const char **text, uint32_t *len) {
    while (*len && (**text == ' ' || **text == '\n' || **text == '\t')) (*text)++, (*len)--;
    while (*len && ((*text)[*len - 1] == ' ' || (*text)[*len - 1] == '\n' || (*text)[*len - 1] == '\t')) (*len)--;
}

static inline bool click_text_is(const char *text, uint32_t len, const char *word) {
    return len == __builtin_strlen(word) && __builtin_memcmp(text, word, len) == 0;
}

static inline bool click_parse_unsigned(const char *text, uint32_t len, uint64_t *value) {
    uint64_t result = 0;
    click_trim(&text, &len);
    if (len == 0) return false;
    for (uint32_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        if (__builtin_mul_overflow(result, (uint64_t)10, &result)) return false;
        if (__builtin_add_overflow(result, (uint64_t)(text[i] - '0'), &result)) return false;
    }
    *value = result;
    return true;
}

static inline bool click_parse_signed(const char *text, uint32_t len, int64_t *value) {
    uint64_t magnitude;
    click_trim(&text, &len);
    const bool negative = len && text[0] == '-';
    if (!click_parse_unsigned(text + negative, len - negative, &magnitude) || magnitude > INT64_MAX) return false;
    *value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

/* A number with up to `decimals` digits behind its point, in units of 10 to the power of -`decimals`. */
static inline bool click_parse_decimal(const char *text, uint32_t len, uint32_t decimals, uint64_t *value) {
    click_trim(&text, &len);
    uint32_t point = 0;
    while (point < len && text[point] != '.') point++;
    uint64_t whole = 0, part = 0;
    const uint32_t digits = point < len ? len - point - 1 : 0;
    if ((point || digits == 0) && !click_parse_unsigned(text, point, &whole)) return false;
    if (digits > decimals || (digits && !click_parse_unsigned(text + point + 1, digits, &part))) return false;
    for (uint32_t i = 0; i < decimals; i++) {
        if (__builtin_mul_overflow(whole, (uint64_t)10, &whole)) return false;
        if (i >= digits) part *= 10;
    }
    return !__builtin_add_overflow(whole, part, value);
}

static inline bool click_parse_bool(const char *text, uint32_t len, bool *value) {
    click_trim(&text, &len);
    const bool yes = click_text_is(text, len, "true") || click_text_is(text, len, "1") || click_text_is(text, len, "yes");
    const bool no = click_text_is(text, len, "false") || click_text_is(text, len, "0") || click_text_is(text, len, "no");
    if (yes || no) *value = yes;
    return yes || no;
}

/* ---- Words of a text ---- */

typedef struct click_word {
    const char *text;
    uint32_t len;
} click_word;

/* The next word, without spaces around it, which the text then no longer holds; an empty one at its end. */
static inline click_word click_next_word(const char **text, uint32_t *len) {
    click_trim(text, len);
    click_word word = {*text, 0};
    while (word.len < *len && word.text[word.len] != ' ' && word.text[word.len] != '\n' && word.text[word.len] != '\t') word.len++;
    *text += word.len;
    *len -= word.len;
    return word;
}

/* An address, as it lies in packets. */
static inline bool click_parse_ip4(click_word word, uint32_t *address) {
    uint32_t result = 0, at = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t part = 0, digits = 0;
        for (; at < word.len && word.text[at] >= '0' && word.text[at] <= '9' && digits < 3; at++, digits++)
            part = part * 10 + (uint32_t)(word.text[at] - '0');
        if (digits == 0 || part > 255) return false;
        result |= part << (8 * i);
        if (i < 3 && (at == word.len || word.text[at++] != '.')) return false;
    }
    if (at != word.len) return false;
    *address = result;
    return true;
}

static inline int click_hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static inline bool click_parse_ether(click_word word, uint8_t *address) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t part = 0, digits = 0;
        for (; at < word.len && click_hex_digit(word.text[at]) >= 0 && digits < 2; at++, digits++)
            part = part * 16 + (uint32_t)click_hex_digit(word.text[at]);
        if (digits == 0) return false;
        address[i] = (uint8_t)part;
        if (i < 5 && (at == word.len || (word.text[at] != ':' && word.text[at] != '-'))) return false;
        at += i < 5;
    }
    return at == word.len;
}

#endif /* CLICK_TEXT_H */
