// A bounded queue from one thread to one other, without locks. Each side keeps its cursor on a cache line of its own.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace edgeos {

template <class T, uint32_t Capacity>
class SpscQueue {
  static_assert((Capacity & (Capacity - 1)) == 0, "a power of two");

 public:
  // Producer. False when full.
  bool push(const T& value) {
    const uint32_t tail = tail_.load(std::memory_order_relaxed);
    // Pairs with the release in pop(): the slot has been read before it is written again.
    if (tail - head_.load(std::memory_order_acquire) == Capacity) return false;
    slots_[tail % Capacity] = value;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Consumer. False when empty.
  bool pop(T& value) {
    const uint32_t head = head_.load(std::memory_order_relaxed);
    // Pairs with the release in push(): the value is there before it is read.
    if (head == tail_.load(std::memory_order_acquire)) return false;
    value = slots_[head % Capacity];
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Consumer.
  bool empty() const { return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_acquire); }

 private:
  alignas(64) std::atomic<uint32_t> head_{0};
  alignas(64) std::atomic<uint32_t> tail_{0};
  alignas(64) std::array<T, Capacity> slots_{};
};

}  // namespace edgeos
