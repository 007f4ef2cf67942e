// An AF_XDP port of several workers. The device's program passes each packet that is taken on to one of several veth pairs,
// a worker's each, by the client's address (steering.hpp); there the worker has an AF_XDP socket of its own, with packet
// memory and rings that it shares with nobody. What it sends goes out by a packet socket.
//
// Each pair lies in a network namespace of its own, without a name: it goes with the last descriptor, as does the program's
// hold on the device. Whoever makes them keeps them, so that a worker that starts again takes its old pair. Set-up; any
// thread. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF; throws with `device` and the fix, and then nothing stays.
#pragma once

#include <string>
#include <vector>

#include "descriptor.hpp"
#include "xdp_link.hpp"
#include "xdp_program.hpp"

namespace edgeos {

struct XdpPairs {
  // The ends of a pair, in its namespace: where packets of the device go in, and where the worker's socket is.
  static constexpr const char* kEntry = "to-worker";
  static constexpr const char* kExit = "worker";

  Descriptor link;                 // of the device's program
  std::vector<Descriptor> spaces;  // one for each worker
};

// `by_destination`: clients are at the other end of what arrives. `queue`: whose packets are taken, -1 for all queues.
XdpPairs open_xdp_pairs(const std::string& device, uint32_t workers, bool by_destination, int queue, const std::vector<Rule>& take);

}  // namespace edgeos
