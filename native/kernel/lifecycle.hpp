// Times the steps of an FWP's life one by one, for `edgeos bench startup`: what Python could not time without adding its own.
#pragma once

#include <cstdint>
#include <vector>

#include "fwp_template.hpp"

namespace edgeos {

struct LifecycleTimes {  // nanoseconds, one entry for each round
  std::vector<uint32_t> create;     // from nothing to an instance at the checkpoint
  std::vector<uint32_t> first_call; // its first burst, of one message
  std::vector<uint32_t> recycle;    // from dirty to ready at the checkpoint
  uint64_t whole_ns = 0;            // of all rounds of create, handle one message and recycle, timed together
};

// Runs `rounds` lives over `live` FWPs in turn; handles a message of `len` bytes in each.
LifecycleTimes measure_lifecycle(const FwpTemplate& tmpl, uint32_t rounds, uint32_t live, uint32_t len);

}  // namespace edgeos
