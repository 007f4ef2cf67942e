// The memory movement accelerator: the only code that copies messages between FWPs and ports. It validates everything that
// a guest wrote, reads each word once, and keeps all cursors on the kernel's side.
//
// Owner: the worker; used from the thread that moves messages. Every message it takes up ends in exactly one ring, one
// port or one drop counter.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "../ports/port.hpp"
#include "chain.hpp"
#include "executor.hpp"
#include "turns.hpp"

namespace edgeos {

class Streams;

class Mma {
 public:
  Mma(const std::vector<Port*>& ports, ReadyList& ready, TimerQueue& timers) : ports_(ports), ready_(ready), timers_(timers) {}

  // Several FWPs of one client run at once: none may take all the room for emissions.
  void share_room() { shares_room_ = true; }
  // Where messages go that belong to connections.
  TimerQueue& timers() { return timers_; }
  void set_streams(Streams* streams) { streams_ = streams; }

  // From a port into a ring that has room for them. Returns how many were left out because they are larger than a slot.
  uint32_t copy_in(Fwp& fwp, const Packet* packets, const uint32_t* flows, uint32_t count, const Entry& entry);

  // Gives an FWP the messages of its timers that have run out. False when there was no room for one of them.
  bool deliver_timers(Fwp& fwp, uint64_t now_ns);

  // Prepares the next burst of an FWP that has messages, and reserves credit for what the guest may emit.
  void begin(Run& run, Fwp& fwp);

  // Moves the results of a burst on; or kills the FWP, then false.
  bool finish(Run& run);

 private:
  struct Source {  // where the messages of a burst come from
    Fwp& fwp;
    ChainInstance& instance;
    Chain& chain;
    const StageSpec& stage;
  };
  struct Train;
  Kill collect(Run& run);
  Kill move_alike(const Source& from, uint32_t& slot, uint32_t end);
  Kill move_to_stage(const Source& from, const Destination& to, uint32_t& slot, const Train& train);
  Kill move_to_port(const Source& from, const Destination& to, uint32_t& slot, const Train& train);
  Kill move_with_care(const Source& from, const Destination& to, uint32_t& slot, uint32_t stop);
  Kill move_to_connections(const Source& from, const Destination& to, uint32_t& slot, uint32_t stop);
  Kill consume(const Source& from, uint32_t& slot, uint32_t stop);
  Kill drop_by_verdict(const Source& from, uint32_t& slot, uint32_t stop);
  void move_emission(const Source& from, const Run& run, const Emission& emission);
  void move_stream_emission(const Source& from, const Run& run, const Emission& emission);
  void deliver(const Source& from, const Destination& to, uint32_t flow, MessageKind kind, const iovec* pieces, uint32_t count);
  void route(const Source& from, const Destination& to, const uint8_t* data, uint32_t len, MessageMeta meta);

  const std::vector<Port*>& ports_;
  ReadyList& ready_;
  TimerQueue& timers_;
  Streams* streams_ = nullptr;
  bool shares_room_ = false;
};

}  // namespace edgeos
