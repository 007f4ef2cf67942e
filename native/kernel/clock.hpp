// Monotonic time in nanoseconds, or the time a test has set.
#pragma once

#include <ctime>

#include <atomic>
#include <cstdint>

namespace edgeos {

inline uint64_t monotonic_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

class Clock {
 public:
  uint64_t now_ns() const {
    const uint64_t fake = fake_ns_.load(std::memory_order_relaxed);
    return fake != 0 ? fake : monotonic_ns();
  }
  bool is_fake() const { return fake_ns_.load(std::memory_order_relaxed) != 0; }
  // From any thread; 0 returns to real time.
  void set_fake_ns(uint64_t ns) { fake_ns_.store(ns, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> fake_ns_{0};
};

}  // namespace edgeos
