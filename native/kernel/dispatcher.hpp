// Decides which chain instance each received message belongs to: flow table first; on a miss a rule, and for a new client
// an activation. Also ends instances that are idle.
//
// Owner: the worker; not thread-safe. Every received message ends in a ring (through the MMA), in a drop counter, or is
// held because it is a fragment whose first one is awaited.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "clock.hpp"
#include "decisions.hpp"
#include "flow_cache.hpp"
#include "flow_table.hpp"
#include "held_fragments.hpp"
#include "mma.hpp"
#include "parking.hpp"
#include "rule_table.hpp"

namespace edgeos {

struct DispatcherCounters {
  uint64_t received = 0;  // from all ports
  DropCounts dropped{};   // before a chain was found
};

class Streams;

class Dispatcher {
 public:
  Dispatcher(const std::vector<Port*>& ports, const std::vector<std::unique_ptr<Chain>>& chains,
             RuleTable& rules, Decisions& decisions, Mma& mma, uint32_t max_flows, uint32_t max_instances);

  // After chains or rules have changed: what was passed on unchanged meets the rules anew; other flows stay.
  void refresh();

  // A port has come behind the others.
  void add_port();

  // Lets no new clients in any more; those that are there stay until they leave.
  void drain();

  // A burst from every port. True if there was anything.
  bool receive(uint64_t now_ns);
  // Ends instances whose idle timeout is over, at most so many of each chain so that a mass leave does not hold up traffic,
  // and drops fragments that waited too long.
  void expire(uint64_t now_ns, uint32_t most);
  // When expire() next has something to do; UINT64_MAX if never.
  uint64_t next_expiry_ns() const;
  // Streams wants to know of instances that end.
  void set_streams(Streams* streams) { streams_ = streams; }
  // The instance for a new connection through a port, by the rules; nullptr, and why, when there is none. The serial number
  // keeps connections apart that have an FWP each.
  ChainInstance* admit(uint16_t port, const ParsedPacket& ends, std::string_view server_name, uint64_t serial, uint64_t now_ns,
                       Drop& why);
  uint16_t domain(uint16_t port) const { return domains_[port]; }
  // There is an answer about a client: its messages that waited meet it.
  void settle(const FlowKey& client);
  // Answers that came so far; connections that wait for one look again when there are more.
  uint64_t answers() const { return decisions_.changes(); }
  // Whether any rule for this port asks for the server's name of TLS.
  bool asks_server_name(uint16_t port) const { return asks_server_name_[port]; }
  // A guest has said that these flows of packets are over, in a burst that has been dealt with.
  void end_flows(const Fwp& by, std::span<const uint32_t> flows);
  // Ends an instance, as its idle timeout would, as soon as no message of it is in flight.
  void let_go(ChainInstance& instance);
  // Something of it has begun before.
  void let_stay(ChainInstance& instance);
  // Drops what is in no ring yet and unbinds everything that is idle.
  void shut_down();

  bool exhausted() const;  // no port will ever receive again, and nothing is pending
  uint32_t held() const { return static_cast<uint32_t>(held_.size() + undecided_.size()) + pending_; }
  uint32_t flows() const { return table_.size(); }
  const DispatcherCounters& counters() const { return counters_; }
  ChainInstance& instance(uint32_t number) { return *instances_[number]; }
  template <class F>
  void for_each_instance(F&& f) const {
    for (const auto& instance : instances_)
      if (instance->chain != nullptr) f(*instance);
  }

 private:
  struct Parsed {  // of a packet whose place the cache does not know
    FlowKey key;
    uint64_t hash;
    bool valid;
    bool first_fragment;
  };
  struct Burst {  // of one port
    uint32_t next = 0;
    uint32_t count = 0;
    Packet packets[kBurst];
    FlowPlace places[kBurst];  // by the cache; its instance is nullptr where `parsed` is filled
    Parsed parsed[kBurst];
    bool first_fragment(uint32_t i) const { return places[i].instance == nullptr && parsed[i].first_fragment; }
  };
  struct Undecided {
    FlowKey client;
    std::vector<uint8_t> bytes;
    uint64_t time_ns;
    uint16_t port;
  };
  bool receive_from(uint16_t port);
  void identify(uint16_t port, Burst& burst);
  static const Fwp* likely_fwp(const FlowPlace& place, uint16_t port);
  void parse(uint16_t port, Burst& burst, uint32_t i);
  bool known(uint16_t port, Burst& burst, uint32_t i);
  FlowPlace enter(uint16_t port, Burst& burst, uint32_t i, uint32_t entry);
  uint32_t dispatch(uint16_t port, Burst& burst);
  uint32_t admit(uint16_t port, const Packet* packets, const uint32_t* flows, uint32_t count, ChainInstance& instance);
  uint32_t refuse(Drop reason);
  struct Choice {
    Chain* chain = nullptr;  // nullptr: none
    RuleEntry* rule = nullptr;
    FlowKey owner{};
  };
  Choice choose(uint16_t port, const ParsedPacket& parsed, std::string_view server_name, Drop& why) const;
  Choice decide(const FlowView& view, Drop& why) const;
  static FlowKey client_key(const FlowView& view);
  bool wait(uint16_t port, const Packet& packet);
  void dispatch_alone(const Undecided& held);
  uint32_t bind(uint16_t port, const Packet& packet, uint64_t hash, Drop& why);
  static FlowKey owner_key(const Chain& chain, Isolation isolation, const FlowView& view);
  uint32_t find_or_activate(Chain& chain, RuleEntry& rule, const FlowKey& key, uint64_t started_ns, Drop& why);
  uint32_t pass(const Packet* packets, uint32_t count, ChainInstance& instance, const Entry& in);
  bool lets_in(Chain& chain, RuleEntry& rule, uint64_t memory, Drop& why);
  bool bind_client(Chain& chain, ChainInstance& instance, std::unique_ptr<ParkedClient>& parked);
  void leave(ChainInstance& instance, Tenant* payer);
  void drop_parked_of_gone();
  static ChainInstance* find_one_to_evict(const Chain& chain);
  uint32_t police(ChainInstance& instance, const Packet* packets, uint32_t count, Drop& why) const;
  uint32_t add_flow(const FlowKey& key, uint64_t hash, uint32_t owner_entry);
  void remember_fragments(uint16_t port, const Packet& first, ChainInstance& instance, uint32_t flow);
  ChainInstance& new_instance();
  void release(ChainInstance& instance);
  void end_those_that_leave();
  static bool may_end(const ChainInstance& instance);
  static bool is_awaited(const ChainInstance& instance, uint8_t stage, uint32_t flow);
  void link_entry(ChainInstance& instance, uint32_t entry);
  void erase_entry(ChainInstance& instance, uint32_t entry);
  void forget_places(ChainInstance& instance);

  const std::vector<Port*>& ports_;
  const std::vector<std::unique_ptr<Chain>>& chains_;
  RuleTable& rules_;
  Decisions& decisions_;
  Mma& mma_;
  Streams* streams_ = nullptr;
  uint64_t now_ns_ = 0;
  bool draining_ = false;
  FlowTable table_;
  FlowCache cache_;
  uint32_t max_flows_;
  uint32_t flow_entries_ = 0;
  uint32_t versions_ = 0;  // given to instances so far, see FlowPlace
  std::vector<uint16_t> domains_;    // by port
  std::vector<bool> asks_server_name_;  // by port
  std::vector<bool> reverse_only_;   // by port: it is only ever a chain's far end
  std::vector<std::unique_ptr<Burst>> bursts_;
  std::vector<std::unique_ptr<ChainInstance>> instances_;
  std::vector<ChainInstance*> free_instances_;
  LeavingList leaving_;
  struct NumberHash {  // of numbers that the kernel gives
    size_t operator()(uint64_t number) const { return fold(number, 0x9e3779b97f4a7c15); }
  };
  // Entries by instance << 32 | flow, where guests may say that one is over.
  std::unordered_map<uint64_t, uint32_t, NumberHash> numbered_;
  HeldFragments held_;
  std::vector<Undecided> undecided_;  // in the order in which they came
  Parking parking_;
  uint32_t pending_ = 0;  // received from a lossless port, waiting for room in a chain
  DispatcherCounters counters_;
};

}  // namespace edgeos
