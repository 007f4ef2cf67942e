// Time in nanoseconds: monotonic, or what a test has set, and of day.
#pragma once

#include <ctime>

#include <atomic>
#include <cstdint>

namespace edgeos {

inline uint64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

inline uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
inline uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }  // a system call
inline uint64_t wall_clock_ns() { return clock_ns(CLOCK_REALTIME); }  // since 1970

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
