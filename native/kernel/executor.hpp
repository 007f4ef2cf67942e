// Runs bursts of messages in guests, on the mover's own thread or on one of its own. The mover decides what runs and moves
// the results either way, so that both have the same semantics.
//
// Threading: submit(), completed() from the mover's thread. While a Run is submitted it belongs to the executor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "clock.hpp"
#include "drop.hpp"
#include "fwp.hpp"
#include "handler.hpp"

namespace edgeos {

class Streams;

// A message that the guest made itself; its bytes are in the run's staging buffer.
struct Emission {
  uint32_t index;  // of the message it precedes
  int32_t port;
  uint32_t offset;
  uint32_t len;
  uint32_t flow = 0;  // 0: that of the message; else of a connection, by edgeos.stream or edgeos.connect
  MessageKind kind = MessageKind::packet;  // of what is sent to that connection; open: an upstream, whose place is `port`
};

// One burst in one FWP: slots first to first + count - 1.
struct Run {
  const Clock* clock = nullptr;  // that timers run by
  Fwp* fwp = nullptr;
  uint32_t first = 0;
  uint32_t count = 0;
  uint32_t emit_room = 0;     // messages the guest may emit
  uint32_t emitted = 0;       // of those
  uint32_t emit_refused = 0;
  uint32_t stream_ops = 0;    // towards sockets, and flows that are over
  uint32_t connect_room = 0;  // connections the guest may open
  uint32_t connects = 0;      // and has asked for
  Streams* streams = nullptr; // of the worker; nullptr when it has no listeners
  HandlerCall* handler = nullptr;  // not a burst but this call
  bool stamp = false;         // started_ns is wanted
  uint64_t started_ns = 0;
  uint64_t submitted_ns = 0;
  uint64_t cpu_ns = 0;        // that it used, of an FWP that is watched or a handler
  Kill result = Kill::none;
  std::vector<Emission> emissions;
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> cut_short;  // flows whose edgeos_send took less than it was given
  std::vector<uint32_t> ended_flows;  // of packets, as the guest says
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual bool has_room() const = 0;
  virtual Run& next_run() = 0;          // an idle run to fill in; only when has_room()
  virtual void submit(Run& run) = 0;
  virtual Run* completed() = 0;         // in the order of submission; nullptr when none is ready
  virtual void release(Run& run) = 0;   // a completed run that has been dealt with
  virtual uint32_t outstanding() const = 0;
};

// `on_start` is called once on the thread that runs guests.
std::unique_ptr<Executor> make_inline_executor(const Clock& clock);
std::unique_ptr<Executor> make_dedicated_executor(const Clock& clock, std::function<void()> on_start);

// Calls a function of a guest under its budget of CPU time, on the calling thread. `args` takes the results.
Kill call_guest(Fwp& fwp, const wasmtime_func_t& function, wasmtime_val_raw_t* args, size_t count);

}  // namespace edgeos
