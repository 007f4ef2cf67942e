// What the ports over kernel devices have in common: a descriptor to wait for, frames that pass the offload burst, and
// what went wrong.
//
// Owner: the worker's data-plane thread. Wait on wait_fd() only after receive() returned 0: segments that are still to
// be handed out do not make it readable.
#pragma once

#include <net/if.h>

#include <algorithm>
#include <stdexcept>

#include "../kernel/clock.hpp"
#include "descriptor.hpp"
#include "offload.hpp"
#include "port.hpp"

namespace edgeos {

class DevicePort : public Port {
 public:
  uint32_t receive(Packet* out, uint32_t max) final {
    if (burst_.empty()) {
      burst_.begin(wall_clock_ns());
      fill_burst(std::min(max, OffloadBurst::kFramesMax));
    }
    return burst_.take(out, max, counters_);
  }
  int wait_fd() const final { return fd_.get(); }
  std::string problem() const final { return problem_; }

 protected:
  DevicePort(std::string name, std::string device, int fd)
      : Port(std::move(name)), device_(std::move(device)), fd_(fd) {}

  // Adds up to `frames_max` frames of the device to burst_, without waiting.
  virtual void fill_burst(uint32_t frames_max) = 0;

  // Each kind of trouble is told once.
  void note(const std::string& what) {
    if (problem_.empty()) problem_ = device_ + ": " + what;
    if (problem_.find(what) == std::string::npos) problem_ += "; " + what;
  }
  void drop_refused() {
    note("a packet to send was refused: " + errno_text(errno));
    counters_.send_dropped++;
  }

  // A request for ioctl(2) on this interface; throws when no interface can have that name.
  ifreq interface_request() const {
    ifreq request{};
    if (device_.empty() || device_.size() >= IFNAMSIZ)
      throw std::runtime_error("\"" + device_ + "\": an interface name has 1 to 15 characters");
    device_.copy(request.ifr_name, IFNAMSIZ - 1);
    return request;
  }

  const std::string device_;
  const Descriptor fd_;
  OffloadBurst burst_;

 private:
  std::string problem_;
};

}  // namespace edgeos
