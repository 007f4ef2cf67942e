#include "memory_port.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "../kernel/clock.hpp"
#include "../kernel/copy.hpp"

namespace edgeos {
namespace {

int open_wake(const std::string& name) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw_errno(name, "cannot make an eventfd", "raise the limit of open files with `ulimit -n`");
  return fd;
}

}  // namespace

MemoryPort::MemoryPort(std::string name, MemoryPortOptions options)
    : Port(std::move(name)), options_(std::move(options)), wake_(open_wake(this->name())) {
  for (const MemoryPacket& packet : options_.loop)
    loop_views_.push_back({packet.bytes.data(), static_cast<uint32_t>(packet.bytes.size()), packet.time_ns});
  if (options_.sink) sink_ = std::make_unique<uint8_t[]>(size_t{kSinkSlots} * kSinkSlotBytes);
}

bool MemoryPort::inject(const uint8_t* data, uint32_t len, uint64_t time_ns) {
  if (len > kPacketBytesMax || !loop_views_.empty()) return false;
  MemoryPacket packet{{data, data + len}, time_ns};
  const std::lock_guard lock(mutex_);
  if (injected_.size() >= options_.capacity) return false;
  injected_.push_back(std::move(packet));
  injected_count_.store(injected_.size(), std::memory_order_release);  // pairs with the load in receive()
  if (injected_.size() == 1) eventfd_write(wake_.get(), 1);
  return true;
}

std::vector<MemoryPacket> MemoryPort::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(sent_, {});
}

uint32_t MemoryPort::receive(Packet* out, uint32_t max) {
  max = std::min(max, options_.burst);
  if (!loop_views_.empty()) return options_.rate == 0 ? receive_loop(out, max) : receive_due(out, max);
  if (max == 0 || injected_count_.load(std::memory_order_acquire) == 0) return 0;
  delivered_.clear();
  const std::lock_guard lock(mutex_);
  const uint32_t count = static_cast<uint32_t>(std::min<size_t>(max, injected_.size()));
  for (uint32_t i = 0; i < count; i++) {
    const MemoryPacket& packet = delivered_.emplace_back(std::move(injected_.front()));
    injected_.pop_front();
    out[i] = {packet.bytes.data(), static_cast<uint32_t>(packet.bytes.size()), packet.time_ns};
    counters_.received_bytes += packet.bytes.size();
  }
  counters_.received += count;
  injected_count_.store(injected_.size(), std::memory_order_release);
  eventfd_t value;
  if (injected_.empty()) eventfd_read(wake_.get(), &value);
  return count;
}

uint32_t MemoryPort::receive_loop(Packet* out, uint32_t max) {
  if (options_.loop_limit != 0)
    max = static_cast<uint32_t>(std::min<uint64_t>(max, options_.loop_limit - looped_));
  uint64_t bytes = 0;
  size_t next = loop_next_;
  for (uint32_t i = 0; i < max; i++) {
    out[i] = loop_views_[next];
    bytes += out[i].len;
    if (++next == loop_views_.size()) next = 0;
  }
  loop_next_ = next;
  looped_ += max;
  counters_.received += max;
  counters_.received_bytes += bytes;
  return max;
}

uint32_t MemoryPort::receive_due(Packet* out, uint32_t max) {
  if (looped_ < options_.unpaced)
    return receive_loop(out, static_cast<uint32_t>(std::min<uint64_t>(max, options_.unpaced - looped_)));
  const uint64_t now = monotonic_ns();
  if (begun_ns_ == 0) begun_ns_ = now;
  const uint64_t first = looped_;
  uint32_t due = 0;
  while (due < max && due_ns(first + due) <= now) due++;
  const uint32_t count = due > 0 ? receive_loop(out, due) : 0;
  for (uint32_t i = 0; i < count; i++) out[i].time_ns = due_ns(first + i);
  return count;
}

bool MemoryPort::send(const uint8_t* data, uint32_t len, uint64_t time_ns) {
  const Packet packet{data, len, time_ns};
  return sink_ ? send_to_sink(&packet, 1) == 1 : send_to_queue(data, len, time_ns);
}

uint32_t MemoryPort::send_burst(const Packet* packets, uint32_t count) {
  return sink_ ? send_to_sink(packets, count) : Port::send_burst(packets, count);
}

EDGEOS_CLONES uint32_t MemoryPort::send_to_sink(const Packet* packets, uint32_t count) {
  uint8_t* const slots = sink_.get();
  const uint64_t before = counters_.sent;
  uint64_t sent = before, bytes = 0;
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t len = packets[i].len;
    if (len > kSinkSlotBytes) continue;
    if (packets[i].time_ns != 0 && sent >= options_.untimed) latency_.add(monotonic_ns() - packets[i].time_ns);
    copy_bytes(slots + sent++ % kSinkSlots * kSinkSlotBytes, packets[i].data, len);
    bytes += len;
  }
  counters_.sent = sent;
  counters_.sent_bytes += bytes;
  return static_cast<uint32_t>(sent - before);
}

bool MemoryPort::send_to_queue(const uint8_t* data, uint32_t len, uint64_t time_ns) {
  MemoryPacket packet{{data, data + len}, time_ns};
  const std::lock_guard lock(mutex_);
  if (sent_.size() >= options_.capacity) return false;
  sent_.push_back(std::move(packet));
  counters_.sent++;
  counters_.sent_bytes += len;
  return true;
}

}  // namespace edgeos
