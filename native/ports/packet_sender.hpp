// Packets on their way out by a packet socket that takes virtio headers: queued, then handed over with few system calls.
//
// Owner: a port; its data-plane thread. Law: accepted by send() = sent + send_dropped + still queued.
#pragma once

#include <sys/socket.h>

#include <array>
#include <memory>

#include "offload.hpp"
#include "port.hpp"

namespace edgeos {

class PacketSender {
 public:
  // The socket stays the caller's.
  explicit PacketSender(int fd);

  // False: no room.
  bool send(const uint8_t* data, uint32_t len);

  // Counts what was sent, and drops what the device refuses for good: then the reason, else 0.
  int flush(PortCounters& counters);

  uint32_t queued() const { return count_; }

 private:
  static constexpr uint32_t kPacketsMax = 256;
  // Room for a full queue of packets of MTU 1500; larger packets fill it with fewer.
  static constexpr uint32_t kBytesMax = kPacketsMax * 2048;
  static_assert(kBytesMax >= OffloadBurst::kReadBytesMax);

  void retire(uint32_t done);

  const int fd_;
  std::unique_ptr<uint8_t[]> bytes_;
  std::array<iovec, kPacketsMax> parts_{};
  std::array<mmsghdr, kPacketsMax> messages_{};
  uint32_t count_ = 0, used_ = 0;
};

}  // namespace edgeos
