#include "ticker.hpp"

#include <ctime>

#include "limits.hpp"

namespace edgeos {
namespace {

uint64_t ticks_of(clockid_t clock) {
  timespec t;
  if (clock_gettime(clock, &t) != 0) return 0;
  return (static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec)) / kTickNs;
}

}  // namespace

void Ticker::watch_this_thread() {
  clockid_t clock;
  if (pthread_getcpuclockid(pthread_self(), &clock) != 0) clock = CLOCK_MONOTONIC;
  busy_.store(true, std::memory_order_release);
  thread_ = std::thread([this, clock] { work(clock); });
}

void Ticker::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  set_busy(true);
  thread_.join();
  stopping_.store(false, std::memory_order_release);
}

void Ticker::work(clockid_t clock) {
  uint64_t ticks = ticks_of(clock);
  while (!stopping_.load(std::memory_order_acquire)) {
    busy_.wait(false, std::memory_order_acquire);
    const timespec period{0, static_cast<long>(kTickNs)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &period, nullptr);
    // One tick at most: what this thread was late by was used by many bursts, not by the one that runs now.
    const uint64_t now = ticks_of(clock);
    if (now > ticks) engine_.tick();
    ticks = now;
  }
}

}  // namespace edgeos
