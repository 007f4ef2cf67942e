// Durations in logarithmic buckets of at most 6 % width: constant memory, a few instructions a sample.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace edgeos {

class Histogram {
 public:
  void add(uint64_t ns) {
    buckets_[bucket(ns)]++;
    count_++;
    if (ns > max_) max_ = ns;
  }
  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }

  // Upper bound of the bucket that holds the given quantile (0 to 1); 0 when empty.
  uint64_t quantile(double q) const {
    if (count_ == 0) return 0;
    const auto rank = static_cast<uint64_t>(q * static_cast<double>(count_ - 1)) + 1;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < kBuckets; i++) {
      seen += buckets_[i];
      if (seen >= rank) return upper(i) < max_ ? upper(i) : max_;
    }
    return max_;
  }

 private:
  static constexpr uint32_t kSub = 16;  // buckets for each doubling
  static constexpr uint32_t kBuckets = kSub * 61;

  static uint32_t bucket(uint64_t v) {
    if (v < kSub) return static_cast<uint32_t>(v);
    const auto exponent = static_cast<uint32_t>(std::bit_width(v)) - 5;
    return exponent * kSub + static_cast<uint32_t>(v >> exponent);
  }
  static uint64_t upper(uint32_t i) {
    if (i < 2 * kSub) return i;
    const uint32_t exponent = i / kSub - 1;
    return ((uint64_t{i % kSub + kSub} + 1) << exponent) - 1;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace edgeos
