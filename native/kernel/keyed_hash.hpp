// A hash keyed with random numbers, for tables whose keys strangers choose: they cannot find keys that collide.
//
// Stateless but for the key, any thread.
#pragma once

#include <cstdint>
#include <random>

namespace edgeos {

inline uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t random_seed() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

}  // namespace edgeos
