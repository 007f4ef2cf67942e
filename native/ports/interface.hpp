// What the ports ask of a network interface before they use it, by ioctl(2) in the caller's network namespace.
//
// Stateless; any thread. Errors say what was tried and the fix.
#pragma once

#include <net/if.h>

#include <cstdint>
#include <string>

namespace edgeos {

struct Interface {
  int index;
  uint32_t mtu;
};

struct QueueCounts {
  uint32_t receive = 1, send = 1;
};

// A request for ioctl(2); throws when no interface can have that name.
ifreq interface_request(const std::string& device);

// Throws unless the interface is there, up, and Ethernet or the loopback.
Interface find_interface(const std::string& device);

// As the driver says; one of each where it does not.
QueueCounts count_queues(const std::string& device);

[[noreturn]] void throw_no_queue(const std::string& device, int queue, uint32_t queues);

}  // namespace edgeos
