// Time in nanoseconds: monotonic, or what a test has set; of day; and short spans.
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

// Nanoseconds since some moment, for spans between two looks: from the processor's own counter, which takes half the time of
// asking the system. A counter that does not run evenly is not used.
class SpanClock {
 public:
  SpanClock() {
    const double first = measure(), second = measure();
    if (first > second * 0.99 && first < second * 1.01) ns_per_tick_ = second;
  }
  uint64_t now_ns() const {
    if (ns_per_tick_ == 0) return monotonic_ns();
    return static_cast<uint64_t>(static_cast<int64_t>(static_cast<double>(static_cast<int64_t>(counter())) * ns_per_tick_));
  }

 private:
  static constexpr uint64_t kMeasureNs = 100'000;
  static double measure() {
    const uint64_t begin_ns = monotonic_ns(), begin = counter();
    uint64_t end_ns = begin_ns;
    while (end_ns - begin_ns < kMeasureNs) end_ns = monotonic_ns();
    return static_cast<double>(end_ns - begin_ns) / static_cast<double>(counter() - begin);
  }
  static uint64_t counter() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return monotonic_ns();
#endif
  }
  double ns_per_tick_ = 0;  // 0: ask the system
};

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
