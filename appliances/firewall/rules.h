/* rules.h: the firewall's rules, compiled from text into a flat array, and the first one that matches a packet.
 *
 * Every fault in the text ends the template with its line, the word found, and what is allowed. Nothing is allocated
 * after rules_compile().
 */
#ifndef EDGEOS_FIREWALL_RULES_H
#define EDGEOS_FIREWALL_RULES_H

#include <stdlib.h>

#include "address.h"
#include "../include/packet.h"

#define RULES_MAX 4096
#define LINE_LEN_MAX 512

/* What a packet is to the rules: one of these. A rule speaks of one or more. */
enum {
    CLASS_IP4 = 1,
    CLASS_IP6 = 2,
    CLASS_ARP = 4,
    CLASS_NEIGHBOUR = 8, /* IPv6 neighbour discovery: ICMPv6 types 133 to 137 */
    CLASS_OTHER = 16
};
#define CLASSES_IP (CLASS_IP4 | CLASS_IP6)
#define CLASSES_LINK (CLASS_ARP | CLASS_NEIGHBOUR) /* what a link needs to work: allowed unless a rule names it */
#define RULES_WITHOUT_FLOWS (CLASSES_LINK | CLASS_OTHER)

#define ANY_PROTO 0xffff

struct port_range {
    uint16_t first, last;
};

struct rule {
    struct prefix src, dst;
    struct port_range src_ports, dst_ports, either_ports;
    uint16_t proto;
    uint8_t classes;
    bool ports; /* some port term is there */
    bool allow;
};

struct rule_list {
    struct rule *rules;
    uint32_t count;
};

/* ---- Matching ---- */

enum rule_match { MATCH_NO, MATCH_YES, MATCH_UNKNOWN };

static inline bool port_in(struct port_range range, uint16_t port) {
    return port >= range.first && port <= range.last;
}

static inline bool address_in(const struct prefix *p, const struct packet_address *a) {
    return ((a->high & p->mask.high) ^ p->address.high) == 0 && ((a->low & p->mask.low) ^ p->address.low) == 0;
}

static inline enum rule_match rule_match_ports(const struct rule *r, const struct packet *p) {
    if (!p->ports) {
        bool hidden = p->fragment == PACKET_LATER && (packet_proto_has_ports(p->proto) || p->proto == PROTO_HIDDEN);
        return hidden ? MATCH_UNKNOWN : MATCH_NO;
    }
    bool either = port_in(r->either_ports, p->src_port) || port_in(r->either_ports, p->dst_port);
    return either && port_in(r->src_ports, p->src_port) && port_in(r->dst_ports, p->dst_port) ? MATCH_YES : MATCH_NO;
}

/* A later fragment has no ports, and perhaps no protocol, to tell: MATCH_UNKNOWN where the rule asks for them. */
static inline enum rule_match rule_match(const struct rule *r, const struct packet *p, uint32_t class) {
    if ((r->classes & class) == 0 || !address_in(&r->src, &p->src) || !address_in(&r->dst, &p->dst)) return MATCH_NO;
    if (r->proto != ANY_PROTO && r->proto != p->proto && p->proto != PROTO_HIDDEN) return MATCH_NO;
    if (r->ports) return rule_match_ports(r, p);
    return r->proto != ANY_PROTO && p->proto == PROTO_HIDDEN ? MATCH_UNKNOWN : MATCH_YES;
}

static inline uint32_t rules_class(const struct packet *p) {
    switch (p->kind) {
    case PACKET_IP4: return CLASS_IP4;
    case PACKET_ARP: return CLASS_ARP;
    case PACKET_IP6: break;
    default: return CLASS_OTHER;
    }
    /* Hop limit 255 and no fragments, or its receivers discard it (RFC 4861, 6.1; RFC 6980). */
    bool neighbour = p->icmp && p->icmp_type >= 133 && p->icmp_type <= 137 && p->hop_limit == 255;
    return neighbour && p->fragment == PACKET_WHOLE ? CLASS_NEIGHBOUR : CLASS_IP6;
}

/* The first match decides; what cannot be told is denied. */
static inline bool rules_allow(const struct rule_list *list, const struct packet *p, uint32_t class) {
    for (uint32_t i = 0; i < list->count; i++) {
        enum rule_match match = rule_match(&list->rules[i], p, class);
        if (match != MATCH_NO) return match == MATCH_YES && list->rules[i].allow;
    }
    return (class & CLASSES_LINK) != 0;
}

/* ---- Faults in the text ---- */

struct fault {
    char text[400];
    uint32_t len;
};

static struct fault rules_fault;

static void fault_char(uint8_t c) {
    if (rules_fault.len + 1 == sizeof rules_fault.text) return;
    rules_fault.text[rules_fault.len++] = c < 32 || c > 126 ? '?' : (char)c;
}

static void fault_say(const char *text) {
    while (*text) fault_char((uint8_t)*text++);
}

static void fault_number(uint32_t value) {
    if (value >= 10) fault_number(value / 10);
    fault_char((uint8_t)('0' + value % 10));
}

static void fault_word(struct text word) {
    const uint32_t shown_max = 48;
    fault_char('\'');
    for (uint32_t i = 0; i < word.len && i < shown_max; i++) fault_char(word.at[i]);
    fault_say(word.len > shown_max ? "...'" : "'");
}

static void fault_line(uint32_t line) {
    fault_say("line ");
    fault_number(line);
    fault_say(": ");
}

__attribute__((noreturn)) static void fault_end(const char *text) {
    fault_say(text);
    rules_fault.text[rules_fault.len] = 0;
    edgeos_fail(rules_fault.text);
}

__attribute__((noreturn)) static void fault(uint32_t line, const char *before, struct text word, const char *after) {
    fault_line(line);
    fault_say(before);
    fault_word(word);
    fault_end(after);
}

/* ---- Words ---- */

enum term_kind { TERM_ACTION, TERM_ANY, TERM_CLASSES, TERM_PROTO, TERM_PROTO_NUMBER, TERM_SRC, TERM_DST, TERM_PORT };

struct term {
    char name[8];
    uint8_t kind;
    uint8_t classes; /* what a packet that matches can be; of TERM_ACTION: whether it allows */
    uint8_t proto;
};

static const struct term actions[] = {{"allow", TERM_ACTION, true, 0}, {"deny", TERM_ACTION, false, 0}};

static const struct term terms[] = {
    {"any", TERM_ANY, 0, 0},
    {"all", TERM_ANY, 0, 0},
    {"ip", TERM_CLASSES, CLASSES_IP, 0},
    {"ip4", TERM_CLASSES, CLASS_IP4, 0},
    {"ip6", TERM_CLASSES, CLASS_IP6, 0},
    {"tcp", TERM_PROTO, CLASSES_IP, PROTO_TCP},
    {"udp", TERM_PROTO, CLASSES_IP, PROTO_UDP},
    {"icmp", TERM_PROTO, CLASS_IP4, PROTO_ICMP},
    {"icmp6", TERM_PROTO, CLASS_IP6, PROTO_ICMP6},
    {"sctp", TERM_PROTO, CLASSES_IP, PROTO_SCTP},
    {"proto", TERM_PROTO_NUMBER, CLASSES_IP, 0},
    {"src", TERM_SRC, CLASSES_IP, 0},
    {"dst", TERM_DST, CLASSES_IP, 0},
    {"port", TERM_PORT, CLASSES_IP, 0},
    {"arp", TERM_CLASSES, CLASS_ARP, 0},
    {"non-ip", TERM_CLASSES, CLASS_ARP | CLASS_OTHER, 0},
};

#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

static uint32_t name_len(const char *name) {
    uint32_t len = 0;
    while (name[len]) len++;
    return len;
}

static bool word_is(struct text word, const char *name) {
    return word.len == name_len(name) && __builtin_memcmp(word.at, name, word.len) == 0;
}

#define EDITS_MAX 2 /* more changed letters make another word */
#define NAME_LEN_MAX (sizeof(terms[0].name) - 1)

static uint8_t lower_case(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c; }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Letters to insert, delete, change or swap with their neighbour to get from one to the other. */
static uint32_t edit_distance(struct text word, const char *name) {
    uint32_t d[NAME_LEN_MAX + EDITS_MAX + 1][NAME_LEN_MAX + 1], columns = name_len(name);
    if (word.len > NAME_LEN_MAX + EDITS_MAX) return EDITS_MAX + 1;
    for (uint32_t i = 0; i <= word.len; i++) {
        for (uint32_t j = 0; j <= columns; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            uint8_t have = lower_case(word.at[i - 1]), want = (uint8_t)name[j - 1];
            d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + (have != want));
            bool swapped = i > 1 && j > 1 && have == (uint8_t)name[j - 2] && lower_case(word.at[i - 2]) == want;
            if (swapped) d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[word.len][columns];
}

static const struct term *nearest_term(struct text word, const struct term *among, uint32_t count) {
    const struct term *nearest = 0;
    uint32_t best = EDITS_MAX + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t distance = edit_distance(word, among[i].name);
        if (distance >= best || distance >= name_len(among[i].name)) continue;
        best = distance;
        nearest = &among[i];
    }
    return nearest;
}

__attribute__((noreturn)) static void fault_unknown(uint32_t line, struct text word, const struct term *among,
                                                    uint32_t count) {
    const struct term *nearest = nearest_term(word, among, count);
    fault_line(line);
    fault_say("unknown word ");
    fault_word(word);
    if (nearest) {
        fault_say("; did you mean '");
        fault_say(nearest->name);
        fault_say("'?");
    }
    fault_say(nearest ? " Allowed here:" : "; allowed here:");
    for (uint32_t i = 0; i < count; i++) {
        fault_say(i ? ", " : " ");
        fault_say(among[i].name);
    }
    fault_end("");
}

static const struct term *known_term(uint32_t line, struct text word, const struct term *among, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (word_is(word, among[i].name)) return &among[i];
    fault_unknown(line, word, among, count);
}

/* ---- Compiling a line ---- */

struct line {
    struct text rest; /* what is still to be read, comment left out */
    uint32_t number;
};

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\r'; }

/* The next word, which `line` then no longer holds; empty at the end. */
static struct text next_word(struct line *line) {
    struct text t = line->rest;
    uint32_t first = 0, end;
    while (first < t.len && is_blank(t.at[first])) first++;
    for (end = first; end < t.len && !is_blank(t.at[end]); end++) continue;
    line->rest = text_part(t, end, t.len);
    return text_part(t, first, end);
}

/* Takes the next word if it is `name`. */
static bool accept_word(struct line *line, const char *name) {
    struct line ahead = *line;
    if (!word_is(next_word(&ahead), name)) return false;
    *line = ahead;
    return true;
}

static const struct port_range all_ports = {0, 65535};

static void compile_ports(struct line *line, struct rule *rule, struct port_range *range) {
    struct text word = next_word(line);
    uint32_t dash = text_find(word, '-', 0), first, last;
    bool good = text_number(text_part(word, 0, dash), 10, 5, 65535, &first);
    last = first;
    if (good && dash < word.len) good = text_number(text_part(word, dash + 1, word.len), 10, 5, 65535, &last);
    if (!good) fault(line->number, "port ", word, " is not N or N-M with numbers from 0 to 65535");
    if (first > last) fault(line->number, "port ", word, " runs backwards; write the lower number first");
    if (range->first != 0 || range->last != 65535) fault(line->number, "port ", word, " is a second one for its side");
    *range = (struct port_range){(uint16_t)first, (uint16_t)last};
    rule->ports = true;
}

/* Narrows what a matching packet can be; the rule must leave something. */
static void narrow(uint32_t number, struct rule *rule, struct text word, uint8_t classes) {
    rule->classes &= classes;
    if (rule->classes == 0) fault(number, "", word, " contradicts the words before it: no packet can be both");
}

static void compile_side(struct line *line, struct rule *rule, struct text side, struct prefix *prefix,
                         struct port_range *ports) {
    if (prefix->given) fault(line->number, "", side, " is there twice; one is allowed in a rule");
    prefix->given = true;
    if (accept_word(line, "port")) {
        compile_ports(line, rule, ports);
        return;
    }
    struct text word = next_word(line);
    if (!word_is(word, "any")) {
        if (!prefix_parse(word, prefix))
            fault(line->number, "address ", word,
                  " is neither 'any' nor an IPv4 or IPv6 address or prefix, such as 192.168.1.0/24 or 2001:db8::/32");
        narrow(line->number, rule, word, prefix->ip6 ? CLASS_IP6 : CLASS_IP4);
    }
    if (accept_word(line, "port")) compile_ports(line, rule, ports);
}

static void compile_proto(struct line *line, struct rule *rule, struct text word, uint32_t proto) {
    if (rule->proto != ANY_PROTO) fault(line->number, "", word, " names a second protocol; one is allowed in a rule");
    rule->proto = (uint16_t)proto;
}

static void compile_proto_number(struct line *line, struct rule *rule) {
    struct text word = next_word(line);
    uint32_t proto;
    if (!text_number(word, 10, 3, 255, &proto))
        fault(line->number, "proto ", word, " is not a number from 0 to 255; tcp, udp, icmp, icmp6, sctp stand alone");
    compile_proto(line, rule, word, proto);
}

static void compile_term(struct line *line, struct rule *rule, struct text word) {
    const struct term *term = known_term(line->number, word, terms, COUNT(terms));
    if (term->kind == TERM_ANY) return;
    narrow(line->number, rule, word, term->classes);
    switch (term->kind) {
    case TERM_PROTO: compile_proto(line, rule, word, term->proto); break;
    case TERM_PROTO_NUMBER: compile_proto_number(line, rule); break;
    case TERM_SRC: compile_side(line, rule, word, &rule->src, &rule->src_ports); break;
    case TERM_DST: compile_side(line, rule, word, &rule->dst, &rule->dst_ports); break;
    case TERM_PORT: compile_ports(line, rule, &rule->either_ports); break;
    default: break;
    }
}

static void compile_rule(struct line *line, struct rule *rule) {
    const uint8_t everything = CLASSES_IP | CLASS_ARP | CLASS_OTHER;
    struct text action = next_word(line), word = next_word(line);
    *rule = (struct rule){.proto = ANY_PROTO, .classes = everything};
    rule->src_ports = rule->dst_ports = rule->either_ports = all_ports;
    rule->allow = known_term(line->number, action, actions, COUNT(actions))->classes;
    if (word.len == 0) fault(line->number, "", action, " says nothing to match; for everything write 'all' behind it");
    for (; word.len; word = next_word(line)) compile_term(line, rule, word);

    if (rule->ports && rule->proto != ANY_PROTO && !packet_proto_has_ports(rule->proto))
        fault(line->number, "", action, " with a port needs tcp, udp or sctp, or no protocol");
    /* Only a rule that names them speaks of what links need, so that 'deny all' leaves them working. */
    if (rule->classes == everything) rule->classes &= (uint8_t)~CLASS_ARP;
    if (rule->proto == PROTO_ICMP6 && (rule->classes & CLASS_IP6)) rule->classes |= CLASS_NEIGHBOUR;
}

/* The next line without its comment; false at the end of the text. */
static bool next_line(struct text *config, struct line *line) {
    if (config->len == 0) return false;
    uint32_t end = text_find(*config, '\n', 0);
    struct text all = text_part(*config, 0, end);
    line->number++;
    if (all.len > LINE_LEN_MAX) {
        all.len = 16;
        fault(line->number, "the line that begins with ", all, " is longer than 512 bytes; write several rules");
    }
    line->rest = text_part(all, 0, text_find(all, '#', 0));
    *config = text_part(*config, end < config->len ? end + 1 : end, config->len);
    return true;
}

static bool line_is_empty(struct line line) { return next_word(&line).len == 0; }

static uint32_t rules_count(struct text config) {
    uint32_t count = 0;
    for (struct line line = {0}; next_line(&config, &line);) {
        if (line_is_empty(line)) continue;
        if (++count > RULES_MAX)
            fault(line.number, "rule ", next_word(&line), " is one too many: at most 4096 are allowed");
    }
    return count;
}

static void rules_compile(struct rule_list *list, const uint8_t *config, uint32_t len) {
    struct text text = {config, len};
    uint32_t count = rules_count(text);
    if (count == 0) return;
    list->rules = calloc(count, sizeof(struct rule));
    if (!list->rules) edgeos_fail("no memory for the rules; raise the memory limit of the template");
    for (struct line line = {0}; next_line(&text, &line);)
        if (!line_is_empty(line)) compile_rule(&line, &list->rules[list->count++]);
}

#endif /* EDGEOS_FIREWALL_RULES_H */
