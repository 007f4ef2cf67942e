/* prefilter.h: where in a text one of many words may begin, sixteen places at a time.
 *
 * Words are in eight groups, each a bit. Four rows of sixteen say by the halves of a byte which groups have a word whose
 * first, or second, byte has that half; a place where all four agree on a group is one to look at more closely. Most text
 * has few of them. Keeps no state.
 */
#ifndef CLICK_PREFILTER_H
#define CLICK_PREFILTER_H

#include <stdint.h>
#ifdef __wasm_simd128__
#include <wasm_simd128.h>
#endif

typedef struct click_prefilter {
    _Alignas(16) uint8_t first_low[16];
    uint8_t first_high[16], second_low[16], second_high[16];
} click_prefilter;

#ifdef __wasm_simd128__
static inline v128_t click_prefilter_groups(const uint8_t *low, const uint8_t *high, v128_t bytes) {
    const v128_t by_low = wasm_i8x16_swizzle(wasm_v128_load(low), wasm_v128_and(bytes, wasm_i8x16_const_splat(15)));
    return wasm_v128_and(by_low, wasm_i8x16_swizzle(wasm_v128_load(high), wasm_u8x16_shr(bytes, 4)));
}
#endif

/* The first of sixteen places at which a word may begin, 16 for none. Seventeen bytes must be there. */
static inline uint32_t click_prefilter_place(const click_prefilter *f, const uint8_t *at) {
#ifdef __wasm_simd128__
    const v128_t first = click_prefilter_groups(f->first_low, f->first_high, wasm_v128_load(at));
    const v128_t second = click_prefilter_groups(f->second_low, f->second_high, wasm_v128_load(at + 1));
    const v128_t none = wasm_i8x16_eq(wasm_v128_and(first, second), wasm_i8x16_const_splat(0));
    return (uint32_t)__builtin_ctz(~(uint32_t)wasm_i8x16_bitmask(none));
#else
    uint32_t place = 0;
    while (place < 16 && !(f->first_low[at[place] & 15] & f->first_high[at[place] >> 4] &
                           f->second_low[at[place + 1] & 15] & f->second_high[at[place + 1] >> 4]))
        place++;
    return place;
#endif
}

#endif /* CLICK_PREFILTER_H */
