// Tells a port what becomes of its network interface: gone, down, another MTU. A netlink socket wakes whoever waits for it;
// what has changed is asked of the kernel, so that no notice can be missed or misread.
//
// Owner: a port; its data-plane thread. Watches the network namespace in which it was made.
#pragma once

#include <string>

#include "descriptor.hpp"

namespace edgeos {

enum class LinkState : uint8_t { up, down, gone };

class LinkWatch {
 public:
  LinkWatch(const std::string& device, int interface, uint32_t mtu);

  // Readable when something has changed, until look() was called.
  int fd() const { return fd_.get(); }
  void look();

  LinkState state() const { return state_; }
  uint32_t mtu() const { return mtu_; }

 private:
  void ask();

  const Descriptor fd_;
  const int interface_;
  LinkState state_ = LinkState::up;
  uint32_t mtu_;
};

}  // namespace edgeos
