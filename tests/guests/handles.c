/* Values that are read and written from outside: "limit" can be both, "handled" only be read, "reset" only be written, "echo"
 * answers with what was written, backwards; "trap", "loop" and "lie" misbehave. A message passes while limit is above 0. */
#include <edgeos.h>
#include <string.h>

EDGEOS_COUNTER(seen);

static uint32_t limit = 1000;

int edgeos_handle(edgeos_message *m) {
    seen.value++;
    if (limit == 0) return EDGEOS_DROP;
    limit--;
    return m->len ? 0 : EDGEOS_DROP;
}

static int is(const char *name, uint32_t len, const char *wanted) {
    return len == strlen(wanted) && memcmp(name, wanted, len) == 0;
}

static int32_t put_number(char *data, uint32_t number) {
    char digits[10];
    int32_t count = 0;
    do digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    for (int32_t i = 0; i < count; i++) data[i] = digits[count - 1 - i];
    return count;
}

static int32_t set_limit(char *data, uint32_t len) {
    uint32_t number = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (data[i] < '0' || data[i] > '9') {
            memcpy(data, "only digits", 11);
            return EDGEOS_BAD_VALUE - 11;
        }
        number = number * 10 + (uint32_t)(data[i] - '0');
    }
    limit = number;
    return 0;
}

int32_t edgeos_handler(int write, const char *name, uint32_t name_len, char *data, uint32_t len, uint32_t capacity) {
    if (is(name, name_len, "limit")) return write ? set_limit(data, len) : put_number(data, limit);
    if (is(name, name_len, "handled")) return write ? EDGEOS_NOT_ALLOWED : put_number(data, (uint32_t)seen.value);
    if (is(name, name_len, "reset")) return write ? (seen.value = 0, 0) : EDGEOS_NOT_ALLOWED;
    if (is(name, name_len, "capacity")) return put_number(data, capacity);
    if (is(name, name_len, "trap")) __builtin_trap();
    if (is(name, name_len, "emit")) return put_number(data, (uint32_t)-edgeos_emit(0, name, name_len));
    if (is(name, name_len, "lie")) return 0x7fffffff;
    if (is(name, name_len, "lie much")) return (int32_t)0x80000000;
    for (volatile int turns = 0; is(name, name_len, "loop"); turns++) {
    }
    if (!is(name, name_len, "echo")) return EDGEOS_NO_HANDLER;
    for (uint32_t i = 0; i < len / 2; i++) {
        const char c = data[i];
        data[i] = data[len - 1 - i];
        data[len - 1 - i] = c;
    }
    return (int32_t)len;
}
