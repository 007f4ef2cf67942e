// Copies of messages: exactly their bytes, since nothing behind a message may reach the next memory.
//
// Stateless, any thread.
#pragma once

#include <cstdint>
#include <cstring>

// Loops that copy are compiled several times where that helps: pieces of 32 and 64 bytes need AVX2 and AVX-512, which not
// every machine has.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EDGEOS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EDGEOS_CLONES
#endif
#define EDGEOS_INLINE __attribute__((always_inline)) inline

namespace edgeos {

// So many bytes in one piece where the machine can, at any address.
template <uint32_t kBytes>
EDGEOS_INLINE void copy_piece(uint8_t* to, const uint8_t* from) {
  typedef uint8_t Piece __attribute__((vector_size(kBytes), aligned(1), may_alias));
  *reinterpret_cast<Piece*>(to) = *reinterpret_cast<const Piece*>(from);
}

// Small messages take overlapping pieces of a fixed size, which beats a call.
EDGEOS_INLINE void copy_bytes(uint8_t* to, const uint8_t* from, uint32_t len) {
  if (len >= 64 && len <= 256) {
    copy_piece<64>(to, from);
    if (len == 64) return;
    if (len > 128) {
      copy_piece<64>(to + 64, from + 64);
      copy_piece<64>(to + len - 128, from + len - 128);
    }
    copy_piece<64>(to + len - 64, from + len - 64);
  } else if (len > 256) {
    std::memcpy(to, from, len);
  } else if (len >= 32) {
    copy_piece<32>(to, from);
    copy_piece<32>(to + len - 32, from + len - 32);
  } else if (len >= 16) {
    copy_piece<16>(to, from);
    copy_piece<16>(to + len - 16, from + len - 16);
  } else {
    for (uint32_t i = 0; i < len; i++) to[i] = from[i];
  }
}

}  // namespace edgeos
