// What the ports over kernel devices have in common: what went wrong; and what those have in common whose frames pass
// the offload burst, a descriptor to wait for.
//
// Owner: the worker's data-plane thread. Wait on wait_fd() only after receive() returned 0: segments that are still to
// be handed out do not make it readable.
#pragma once

#include <algorithm>

#include "../kernel/clock.hpp"
#include "descriptor.hpp"
#include "interface.hpp"
#include "offload.hpp"
#include "port.hpp"

namespace edgeos {

class LivePort : public Port {
 public:
  std::string problem() const final { return problem_; }
  std::string mode() const final { return mode_; }

 protected:
  LivePort(std::string name, std::string device) : Port(std::move(name)), device_(std::move(device)) {}

  // Each kind of trouble is told once.
  void note(const std::string& what) {
    if (problem_.empty()) problem_ = device_ + ": " + what;
    if (problem_.find(what) == std::string::npos) problem_ += "; " + what;
  }
  void note_refused(int error) { note("a packet to send was refused: " + errno_text(error)); }

  const std::string device_;
  std::string mode_;

 private:
  std::string problem_;
};

class DevicePort : public LivePort {
 public:
  uint32_t receive(Packet* out, uint32_t max) final {
    if (burst_.empty()) {
      burst_.begin(wall_clock_ns());
      fill_burst(std::min(max, OffloadBurst::kFramesMax));
    }
    return burst_.take(out, max, counters_);
  }
  int wait_fd() const final { return fd_.get(); }

 protected:
  DevicePort(std::string name, std::string device, int fd) : LivePort(std::move(name), std::move(device)), fd_(fd) {}

  // Adds up to `frames_max` frames of the device to burst_, without waiting.
  virtual void fill_burst(uint32_t frames_max) = 0;

  void drop_refused() {
    note_refused(errno);
    counters_.send_dropped++;
  }

  const Descriptor fd_;
  OffloadBurst burst_;
};

}  // namespace edgeos
