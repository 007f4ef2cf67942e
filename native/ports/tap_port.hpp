// A TAP device: the node is the far end of a network interface of this machine, which needs no driver and no peer.
//
// Manual: the device is created when missing, brought up, and removed when the port closes (unless it was made
// persistent before). Frames carry virtio headers, so that TCP with default offloads passes; super-frames arrive as
// packets of at most the MTU. Owner: the worker's data-plane thread. send() writes at once, so queued() is always 0.
// What the kernel loses before receive() is in the device's own tx_dropped. Needs CAP_NET_ADMIN.
#pragma once

#include <vector>

#include "device_port.hpp"

namespace edgeos {

// One queue of a device for each worker process, in their order; the kernel chooses among them by the client's address, see
// steering.hpp. The caller closes them. Throws std::system_error with the fix; then nothing stays open.
std::vector<int> open_tap_queues(const std::string& device, uint32_t queues, bool by_destination);

class TapPort final : public DevicePort {
 public:
  // `offload`: take unfinished checksums and super-frames from the kernel, which costs less than packet by packet.
  // `fd`: a queue that somebody else has made and keeps; -1: a device of its own.
  TapPort(std::string name, const std::string& device, bool offload = true, int fd = -1);

  bool send(const uint8_t* data, uint32_t len, uint64_t time_ns) override;
  void flush() override {}

 private:
  void fill_burst(uint32_t frames_max) override;
  void go_silent();

  bool gone_ = false;  // somebody removed the device
};

}  // namespace edgeos
