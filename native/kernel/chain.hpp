// Chains: FWPs linked in a line or a small graph, and their instances, one for each client (or flow, or for all).
//
// Owner: the worker; not thread-safe. A chain instance holds at most as many messages as its smallest ring has slots: all of
// them from ports, or half when its guests can emit, for which the other half is kept. So a ring inside a chain can never be
// full: a slow stage holds the chain's credit, and that stops the port in front of it.
//
// Law, checked by tests: received + emitted = sent + dropped + consumed + in flight.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "connection.hpp"
#include "drop.hpp"
#include "histogram.hpp"
#include "intrusive_list.hpp"
#include "limits.hpp"
#include "packet_parser.hpp"
#include "parked_client.hpp"
#include "pool.hpp"
#include "rate.hpp"
#include "rule_table.hpp"
#include "tenant.hpp"

namespace edgeos {

enum class WhenFull : uint8_t { refuse, evict };
enum class OnKill : uint8_t { restart, block };

// Where a message goes next.
struct Destination {
  enum class Kind : uint8_t { none, drop, stage, port, upstream };  // upstream: the connection that the message came from
  Kind kind = Kind::none;
  uint8_t index = 0;      // of the stage or the port
  uint8_t direction = 0;  // it then travels in
  uint8_t in_port = 0;    // of the stage
};

inline constexpr uint32_t kRoutes = kOutPortsMax + 2;

struct StageSpec {
  std::string name;
  Pool* pool = nullptr;
  // By direction and verdict + 2: back, drop, out port 0, 1, …
  std::array<std::array<Destination, kRoutes>, kDirections> routes{};
};

struct Entry {
  bool open = false;
  uint8_t stage = 0;      // in a chain without stages, which passes messages on as they are: the port of exit
  uint8_t direction = 0;
  uint8_t in_port = 0;
};

struct ChainSpec {
  std::string name;
  uint16_t number = 0;  // in the node
  WhenFull when_full = WhenFull::refuse;
  OnKill on_kill = OnKill::restart;
  uint64_t idle_timeout_ns = 60'000'000'000;
  bool keep = false;             // clients that leave are parked, see parking.hpp
  uint64_t keep_memory = 0;      // bytes that parked clients may take together
  uint64_t keep_timeout_ns = 0;  // that a client stays parked; 0: for ever
  uint32_t max_fwps = 1000;
  uint32_t new_clients = 0;  // a second; 0 is any number
  uint16_t domain = 0;
  std::vector<StageSpec> stages;
  std::array<Entry, kPortsMax> entries{};  // by number of the port
};

struct StageCounters {
  uint64_t handled = 0;
  uint64_t bursts = 0;
};

struct ChainCounters {
  uint64_t received = 0;
  uint64_t emitted = 0;
  uint64_t emit_refused = 0;
  uint64_t sent = 0;
  uint64_t consumed = 0;  // the guest said EDGEOS_DONE, or it was news of a connection and reached its port
  uint64_t activations = 0;
  uint64_t evicted = 0;
  uint64_t expired = 0;
  uint64_t live = 0;  // FWPs bound to instances
  uint64_t peak = 0;
  DropCounts dropped{};
  KillCounts kills{};
  ParkingCounters parking;
};

class Chain;

// What Streams knows of a chain instance; what each message needs comes first.
struct InstanceStreams {
  WorkList parked;            // wait for room in the instance
  Connection* latest = nullptr;  // that was looked up
  uint32_t latest_flow = 0;   // its flow number; 0: none
  uint32_t held = 0;          // its clients' connections that do not take what is sent: none of its sockets is read
  uint32_t held_clients = 0;  // its connections to upstreams of that kind: clients' sockets are not read
  uint32_t stalled = 0;       // its clients' connections over the output limit: it is not run
  uint32_t untold = 0;        // connections that are gone and whose end it has yet to hear of
  uint32_t clients = 0;       // connections that came to it
  uint32_t upstreams = 0;     // connections that its guests have opened
  InstanceList connections;
  WorkList held_back;         // are not read until those who do not take what is sent have taken it
  std::shared_ptr<uint32_t> departing;  // connections that its guests have opened and closed, and that still have a socket

  uint32_t upstream_room() const {
    const uint32_t used = upstreams + (departing != nullptr ? *departing : 0);
    return kUpstreamsPerInstanceMax - std::min(kUpstreamsPerInstanceMax, used);
  }
};

// What each message needs comes first: of packets on two lines of the cache, of connections on the first and that of `streams`.
struct alignas(64) ChainInstance {
  Chain* chain = nullptr;
  Tenant* tenant = nullptr;
  uint64_t last_used_ns = 0;
  uint64_t activation_started_ns = 0;  // set until its first message is handled
  uint64_t debt_ns = 0;  // what its guests used beyond their turns, see turns.hpp
  uint32_t in_flight = 0;
  uint32_t reserved = 0;     // room kept for what running guests may emit
  uint32_t flows_version = 0;  // changes when it loses a flow, see FlowPlace
  bool connected = false;  // in which order of the chain it stands
  bool blocked = false;
  bool returns = false;  // its owner may come back when it is gone: neither all clients nor one connection
  Isolation isolation = Isolation::client;
  std::array<Fwp*, kStagesMax> fwps{};

  RuleEntry* rule = nullptr;  // that let it in
  alignas(64) InstanceStreams streams;
  uint32_t number = 0;
  uint32_t flow_count = 0;   // entries of the flow table
  uint32_t datagrams = 0;    // and how many of those are for later fragments
  uint32_t flows_ever = 0;   // last flow number given
  uint32_t newest = 0;       // its entries in the flow table, linked by age
  uint32_t oldest = 0;
  ChainInstance* more_idle = nullptr;  // neighbours in the chain's order of use
  ChainInstance* less_idle = nullptr;
  bool untracked = false;  // its guests may hold flows that there are no entries for
  bool leaving = false;    // ends as soon as no message of it is in flight, but
  uint64_t stays_until_ns = 0;  // not before: or one client could have its data parked and laid over FWPs without end
  Link<ChainInstance> leaving_link;
  // From either thread. Flow numbers are not used again, and 0 is none.
  uint32_t next_flow() {
    const uint32_t flow = std::atomic_ref(flows_ever).fetch_add(1, std::memory_order_relaxed) + 1;
    return flow != 0 ? flow : next_flow();
  }
  uint32_t last_flow() { return std::atomic_ref(flows_ever).load(std::memory_order_relaxed); }
  // Starts to bring near what a connection's next message needs of it.
  void prefetch() const {
    prefetch_line(this);
    prefetch_line(&streams);
  }
  FlowKey owner{};
};

using LeavingList = List<ChainInstance, &ChainInstance::leaving_link>;

struct ParkingTimes {
  Histogram park;
  Histogram resume;
};

class Chain {
 public:
  explicit Chain(ChainSpec spec);

  const ChainSpec& spec() const { return spec_; }
  // The place of an FWP that was killed stays its client's, so instances count and not live FWPs.
  bool at_limit() const { return (instances_ + 1) * spec_.stages.size() > spec_.max_fwps; }
  // Messages from ports that an instance may hold; the rest is kept for what its guests emit.
  uint32_t entry_credit() const { return entry_credit_; }
  uint32_t entry_room(const ChainInstance& i) const {
    const uint32_t by_entry = i.in_flight < entry_credit() ? entry_credit() - i.in_flight : 0;
    const uint32_t used = i.in_flight + i.reserved;
    return used >= credit_ ? 0 : by_entry < credit_ - used ? by_entry : credit_ - used;
  }
  uint32_t emit_room(const ChainInstance& i) const {
    const uint32_t used = (i.in_flight > entry_credit() ? i.in_flight : entry_credit()) + i.reserved;
    return used < credit_ ? credit_ - used : 0;
  }

  // Binds a ready FWP to every stage. False, with nothing bound, when one cannot be had.
  bool bind(ChainInstance& instance, uint64_t now_ns);
  // The FWP of a stage; a fresh one when the last was killed; nullptr when none can be had, or none may.
  Fwp* fwp(ChainInstance& instance, uint8_t stage) {
    Fwp* f = instance.fwps[stage];
    return f != nullptr ? f : instance.blocked ? nullptr : replace(instance, stage);
  }
  // Ends one FWP: its waiting messages are dropped, its stage is empty until the next message.
  void kill(Fwp& fwp, Kill cause);
  // Returns all FWPs to their pools; messages still in their rings are dropped. None may be running or queued.
  void unbind(ChainInstance& instance);
  // Marks use; keeps the order by idleness, to a sixteenth of the idle timeout.
  void touch(ChainInstance& instance, uint64_t now_ns) {
    if (now_ns - instance.last_used_ns > touch_grain_ns_) move_to_back(instance, now_ns);
  }
  // Those with open connections are kept apart: time does not end them.
  ChainInstance* longest_idle() const { return idle_.most; }
  ChainInstance* longest_idle_connected() const { return connected_.most; }
  // The first connection of an instance has come, or its last has gone.
  void set_connected(ChainInstance& instance, bool connected, uint64_t now_ns);
  // No new clients from now on; the living leave as soon as no message of theirs is in flight.
  void close() { closed_ = true; }
  bool closed() const { return closed_; }
  // No new clients from now on; the living stay until they leave by themselves.
  void retire() { retired_ = true; }
  bool retired() const { return retired_; }
  bool is_wire() const { return spec_.stages.empty(); }
  // It has an entry at a port for packets, from now on.
  void enter_by_packets() {
    if (closes_flows_) ends_flows_.store(true, std::memory_order_relaxed);
  }
  // Its guests may say that a flow of packets is over. From either thread.
  bool ends_flows() const { return ends_flows_.load(std::memory_order_relaxed); }
  uint64_t memory() const { return memory_; }  // bytes of a new instance's FWPs
  // FWPs that it may still bind, now or later.
  uint64_t places() const { return retired_ ? instances_ * spec_.stages.size() : is_wire() ? 0 : spec_.max_fwps; }
  uint64_t instances() const { return instances_; }
  uint64_t idle_timeout_ns() const { return closed_ ? 0 : spec_.idle_timeout_ns; }

  // The guest's counters of this FWP have come back, and are counted with the living again.
  void recall_counters(const Fwp& fwp);

  void drop(ChainInstance& instance, Drop reason, uint32_t messages = 1) {
    counters.dropped[size_t(reason)] += messages;
    instance.in_flight -= messages;
  }
  // Why fwp() gave nothing.
  static Drop why_no_fwp(const ChainInstance& instance);
  void finish_sent(ChainInstance& instance, uint32_t messages) {
    counters.sent += messages;
    instance.in_flight -= messages;
  }

  void finish_consumed(ChainInstance& instance, uint32_t messages) {
    counters.consumed += messages;
    instance.in_flight -= messages;
  }

  ChainCounters counters;
  Rate new_clients;
  Histogram activation_ns;
  std::vector<StageCounters> stage_counters;
  std::vector<std::vector<uint64_t>> departed;  // by stage, the guest's counters of FWPs that are gone
  ParkedList parked;                            // the longest parked first
  std::unique_ptr<ParkingTimes> parking_times;  // where clients are kept

 private:
  Fwp* replace(ChainInstance& instance, uint8_t stage);
  void retire(Fwp& fwp);
  struct Order {  // by idleness
    ChainInstance* most = nullptr;
    ChainInstance* least = nullptr;
  };
  Order& order(const ChainInstance& instance) { return instance.connected ? connected_ : idle_; }
  void unlink(ChainInstance& instance);
  void link_at_back(ChainInstance& instance, uint64_t now_ns);
  void move_to_back(ChainInstance& instance, uint64_t now_ns);

  ChainSpec spec_;
  uint32_t credit_;
  uint32_t entry_credit_;
  uint64_t instances_ = 0;
  bool closed_ = false;
  bool retired_ = false;
  bool closes_flows_ = false;  // its guests import the call
  std::atomic<bool> ends_flows_ = false;
  uint64_t touch_grain_ns_;
  uint64_t memory_ = 0;
  Order idle_;
  Order connected_;
};

// A counter of a guest, read from its memory as it is now; bounds were checked when the template was made.
uint64_t read_counter(const Fwp& fwp, const CounterLayout& counter);

}  // namespace edgeos
