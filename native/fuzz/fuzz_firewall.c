/* Fuzzes the firewall's rule compiler and packet path on the host, where the sanitizers see every read and write:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -DEDGEOS_HOST_TEST
 *         -Iguest/include native/fuzz/fuzz_firewall.c -o fuzz_firewall
 *
 * Input: one byte for the length of the rules, halved; the rules; then messages, each of one byte of direction and
 * seconds passed, one byte of length, and its bytes. Each message is copied to a heap block of exactly its length.
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static jmp_buf refused;

__attribute__((noreturn)) static void edgeos_fail(const char *reason) {
    if (strlen(reason) < 10) abort(); /* a refusal without a reason */
    longjmp(refused, 1);
}

#include "../../appliances/firewall/firewall.c"

static void start_anew(void) {
    free(rules.rules);
    rules = (struct rule_list){0};
    rules_fault.len = 0;
    flows.used = fragments.used = 0;
    memset(flows_sets, 0, sizeof flows_sets);
    memset(fragments_sets, 0, sizeof fragments_sets);
}

static uint64_t counted(void) { return allowed.value + established.value + denied.value + malformed.value; }

static void handle(const uint8_t *data, uint32_t len, uint8_t control, uint64_t time_ns) {
    uint8_t *block = malloc(len ? len : 1);
    if (!block) abort();
    memcpy(block, data, len);
    edgeos_message m = {.data = block, .len = len, .capacity = len, .direction = control & 1, .time_ns = time_ns};
    uint64_t before = counted();
    int verdict = edgeos_handle(&m);
    if ((verdict != 0 && verdict != EDGEOS_DROP) || counted() != before + 1) abort();
    if (m.data != block || m.len != len || memcmp(block, data, len) != 0) abort();
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    start_anew();
    size_t config_len = data[0] * 2u;
    data++;
    size--;
    if (config_len > size) config_len = size;
    if (setjmp(refused)) return 0;
    edgeos_init(data, (uint32_t)config_len);

    uint64_t time_ns = SECOND_NS;
    for (size_t at = config_len; size - at >= 2;) {
        uint8_t control = data[at];
        size_t len = data[at + 1];
        at += 2;
        if (len > size - at) len = size - at;
        time_ns += (control >> 1) * SECOND_NS;
        handle(data + at, (uint32_t)len, control, time_ns);
        at += len;
    }
    return 0;
}
