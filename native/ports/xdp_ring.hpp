// One of the four rings that an AF_XDP socket shares with the kernel: a power of two of entries, mapped memory. We produce
// into the fill and send rings and consume from the receive and completion rings; the kernel does the opposite.
//
// Owner: an XdpSocket; its data-plane thread. Each release store pairs with the kernel's acquire load of the same word, and
// the other way round. Cursors of ours are kept on our side; those of the kernel are believed to stay within the ring.
#pragma once

#include <linux/if_xdp.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>

namespace edgeos {

template <class Entry>
class XdpRing {
 public:
  XdpRing() = default;
  ~XdpRing() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
  }
  XdpRing(const XdpRing&) = delete;
  XdpRing& operator=(const XdpRing&) = delete;

  // False with errno when the kernel does not give it.
  bool map(int socket, const xdp_ring_offset& offsets, uint32_t entries, uint64_t page_offset) {
    bytes_ = offsets.desc + entries * sizeof(Entry);
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket, static_cast<off_t>(page_offset));
    if (memory == MAP_FAILED) return false;
    memory_ = static_cast<uint8_t*>(memory);
    producer_ = reinterpret_cast<uint32_t*>(memory_ + offsets.producer);
    consumer_ = reinterpret_cast<uint32_t*>(memory_ + offsets.consumer);
    flags_ = reinterpret_cast<uint32_t*>(memory_ + offsets.flags);
    entries_ = reinterpret_cast<Entry*>(memory_ + offsets.desc);
    mask_ = entries - 1;
    return true;
  }

  uint32_t entries() const { return mask_ + 1; }
  Entry& operator[](uint32_t cursor) { return entries_[cursor & mask_]; }

  // Where the kernel is, in the rings that we produce into and consume from.
  uint32_t consumed() const { return std::atomic_ref(*consumer_).load(std::memory_order_acquire); }
  uint32_t produced() const { return std::atomic_ref(*producer_).load(std::memory_order_acquire); }
  void produce(uint32_t cursor) { std::atomic_ref(*producer_).store(cursor, std::memory_order_release); }
  void consume(uint32_t cursor) { std::atomic_ref(*consumer_).store(cursor, std::memory_order_release); }

  // Whether the kernel asks for a system call before it looks at this ring again.
  bool needs_wakeup() const { return (std::atomic_ref(*flags_).load(std::memory_order_relaxed) & XDP_RING_NEED_WAKEUP) != 0; }

 private:
  uint8_t* memory_ = nullptr;
  size_t bytes_ = 0;
  uint32_t *producer_ = nullptr, *consumer_ = nullptr, *flags_ = nullptr;
  Entry* entries_ = nullptr;
  uint32_t mask_ = 0;
};

}  // namespace edgeos
