// Advances the engine's epoch by the CPU time that the thread which runs guests has used, one tick a millisecond. CPU time
// and not wall time: on a busy machine an innocent guest must not pay for the time that others ran.
//
// Threading: a thread of its own; sleeps while the watched thread is idle, so an idle node costs nothing.
#pragma once

#include <pthread.h>

#include <atomic>
#include <thread>

#include "engine.hpp"

namespace edgeos {

class Ticker {
 public:
  explicit Ticker(Engine& engine) : engine_(engine) {}
  ~Ticker() { stop(); }

  // Starts to watch the calling thread, which must live until stop().
  void watch_this_thread();
  void stop();
  // From the watched thread's side: whether guests may run now.
  void set_busy(bool busy) {
    if (busy_.exchange(busy, std::memory_order_release) != busy && busy) busy_.notify_one();
  }

 private:
  void work(clockid_t clock);

  Engine& engine_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace edgeos
