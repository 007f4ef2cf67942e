// Named values of a guest that the control plane reads and writes: one call into one FWP, between two of its bursts and under
// the same budget. Its tenant pays for the CPU time, and is not asked while it has none left. Name and value pass through slots of its ring that hold no message, so they cost no memory of their own.
//
// Owner: the worker, which makes the call; it runs where the guest's bursts run. Nothing the guest answers is believed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "drop.hpp"
#include "fwp.hpp"

namespace edgeos {

inline constexpr uint32_t kHandlerNameMax = 256;    // bytes
inline constexpr uint32_t kHandlerValueMax = 65536;

enum class HandlerStatus : uint8_t {
  done,         // value: what was read, or the answer to a write
  unknown,      // the guest has no value of this name
  not_allowed,  // it cannot be read, or not written
  bad_value,    // the new value was refused; value: why, in the guest's words
  none,         // the guest has no handlers at all
  too_large,    // name and value do not fit into the slots that are free now
  killed,       // the call ended the FWP, cause: why
  no_cpu,       // its tenant has used its CPU time of the moment; the guest was not asked
};

struct HandlerCall {
  bool write = false;
  std::string name;
  std::string value;  // to be written; then the guest's answer
  HandlerStatus status = HandlerStatus::done;
};

// Makes the call on the thread that runs guests. Returns what killed the FWP, if anything did.
Kill run_handler(Fwp& fwp, HandlerCall& call);

}  // namespace edgeos
