// How the FWPs of a template begin: what parking compares them with. Made from an FWP that has just been made.
//
// Owner: the pool; made once, for templates of chains that keep their clients. Immutable.
#pragma once

#include <vector>

#include "fwp.hpp"
#include "memory_difference.hpp"

namespace edgeos {

struct Origin {
  explicit Origin(const FwpTemplate& tmpl);  // throws std::runtime_error when no FWP can be made

  std::vector<uint8_t> memory;  // without the zeroes at its end
  std::vector<Fwp::Global> globals;
  std::vector<MemoryArea> left_out;  // messages, verdicts and slots: no client's once they are handled
};

}  // namespace edgeos
