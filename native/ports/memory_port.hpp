// Packets from and to memory, for tests and benchmarks.
//
// Owner: the worker's data-plane thread; inject() and take() may be called from any other thread. Both queues are
// bounded by `capacity`; what send() accepts is sent at once, so queued() is always 0. With `loop` the given packets
// arrive in place, round and round, and with `sink` sent packets are copied and forgotten: neither takes a lock. With
// `rate` the loop's packets, behind the first `unpaced` ones, arrive evenly and carry the time at which they were due; a
// sink whose packets carry a time keeps how long each was under way, waiting for a busy worker included. latency() is for
// when the worker has stopped.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "../kernel/histogram.hpp"
#include "descriptor.hpp"
#include "port.hpp"

namespace edgeos {

struct MemoryPacket {
  std::vector<uint8_t> bytes;
  uint64_t time_ns = 0;
};

struct MemoryPortOptions {
  uint32_t capacity = 4096;  // packets, each way
  bool lossless = false;
  std::vector<MemoryPacket> loop = {};  // delivered instead of what is injected
  uint64_t loop_limit = 0;         // packets, then the port is exhausted; 0 for endless
  bool sink = false;               // take() then has nothing
  uint32_t burst = UINT32_MAX;     // packets that one receive() gives at most
  uint64_t rate = 0;               // packets of the loop a second; 0 for as many as are taken
  uint64_t unpaced = 0;            // packets at first that arrive as fast as they are taken, without a time
  uint64_t untimed = 0;            // packets at first whose time in a sink is not kept
};

class MemoryPort final : public Port {
 public:
  static constexpr uint32_t kPacketBytesMax = 262144;  // as in capture files

  explicit MemoryPort(std::string name, MemoryPortOptions options = {});

  // Copies one packet in. False: the queue is full, the packet is too large, or the port delivers its loop.
  bool inject(const uint8_t* data, uint32_t len, uint64_t time_ns);

  // Takes out all that was sent since the last call.
  std::vector<MemoryPacket> take();

  // Nanoseconds from when a packet was due to its arrival in this sink.
  const Histogram& latency() const { return latency_; }

  uint32_t receive(Packet* out, uint32_t max) override;
  bool send(const uint8_t* data, uint32_t len, uint64_t time_ns) override;
  uint32_t send_burst(const Packet* packets, uint32_t count) override;
  void flush() override {}
  int wait_fd() const override { return options_.loop.empty() ? wake_.get() : -1; }
  bool lossless() const override { return options_.lossless; }
  bool exhausted() const override {
    return options_.loop.empty() ? options_.sink : options_.loop_limit != 0 && looped_ == options_.loop_limit;
  }

 private:
  static constexpr uint32_t kSinkSlots = 64, kSinkSlotBytes = 2112;  // in the L2 cache, not in one set of it

  uint32_t receive_loop(Packet* out, uint32_t max);
  uint32_t receive_due(Packet* out, uint32_t max);
  uint64_t due_ns(uint64_t packet) const { return begun_ns_ + (packet - options_.unpaced) * 1'000'000'000 / options_.rate; }
  uint32_t send_to_sink(const Packet* packets, uint32_t count);
  bool send_to_queue(const uint8_t* data, uint32_t len, uint64_t time_ns);

  MemoryPortOptions options_;
  Descriptor wake_;  // readable while injected_ is not empty

  std::mutex mutex_;  // guards injected_ and sent_
  std::deque<MemoryPacket> injected_;
  std::vector<MemoryPacket> sent_;
  std::atomic<size_t> injected_count_{0};  // stored under the mutex, loaded without it, so that idling takes no lock

  std::vector<MemoryPacket> delivered_;  // what the views of the last receive() show
  std::vector<Packet> loop_views_;
  size_t loop_next_ = 0;
  uint64_t looped_ = 0;
  uint64_t begun_ns_ = 0;  // when the first packet of a loop with a rate was due
  Histogram latency_;
  std::unique_ptr<uint8_t[]> sink_;
};

}  // namespace edgeos
