// Clients that no rule matches: the control plane is asked what to do with each, once, off the path of messages, and its answer
// is kept until the client has been idle for a while. Without an answer in time a default holds.
//
// A flood of unknown clients is bounded: so many are remembered, so many wait for an answer, of one IPv6 network a quarter, and
// so many of their messages are kept meanwhile; whoever comes beyond is turned away, and is not remembered.
//
// Owner: the dispatcher, on the data-plane thread; questions are handed over under a lock to the thread that asks for them.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "drop.hpp"
#include "intrusive_list.hpp"
#include "keyed_hash.hpp"
#include "packet_parser.hpp"
#include "rule_table.hpp"

namespace edgeos {

struct Question {
  uint64_t id;
  FlowKey client;     // its address, VLAN, kind of network layer
  Address peer;
  uint16_t client_port;
  uint16_t peer_port;
  uint16_t port;      // of entry
  uint8_t protocol;
  uint8_t ip_version;
  std::string server_name;
};

struct DecisionSettings {
  uint64_t deadline_ns = 0;
  uint64_t keep_ns = 0;         // a decision about a client of whom nothing was heard for so long is forgotten
  uint32_t clients_max = 0;     // that are remembered
  uint32_t waiting_max = 0;     // that wait for an answer
  Rule otherwise;               // what holds without an answer; its action, isolation and tenant
  Tenant* tenant = nullptr;
};

struct DecisionCounters {
  uint64_t asked = 0;
  uint64_t answered = 0;
  uint64_t failed = 0;     // the callback did
  uint64_t defaulted = 0;  // no answer in time, or none that could be used
  uint64_t late = 0;       // answers after that
  uint64_t turned_away = 0;  // messages and connections of clients that could not even be asked about
  uint64_t waiting = 0;    // clients, now
  uint64_t kept = 0;       // decisions, now
};

struct Decision {
  uint64_t id = 0;
  FlowKey client;
  bool made = false;
  uint64_t asked_ns = 0;
  uint64_t last_used_ns = 0;
  RuleEntry rule;
  Link<Decision> link;  // among those that wait, or those that are made
};
using DecisionList = List<Decision, &Decision::link>;

// Strangers choose addresses.
struct ClientHash {
  size_t operator()(const Address& a) const { return fold(a.first ^ seed[0], a.second ^ seed[1]); }
  size_t operator()(const FlowKey& k) const {
    return fold(k.a.first ^ seed[0], k.a.second ^ seed[1]) ^ fold(k.scope ^ seed[2], k.transport ^ seed[3]);
  }
  uint64_t seed[4] = {random_seed(), random_seed(), random_seed(), random_seed()};
};

class Decisions {
 public:
  void set(std::optional<DecisionSettings> settings);
  bool asks() const { return settings_.has_value(); }
  // What holds without an answer; nullptr where nobody is asked.
  const Rule* otherwise() const { return settings_ ? &settings_->otherwise : nullptr; }
  // Its chain or its tenant is gone.
  void drop_otherwise();

  // What is known of a client: a decision that is made, or nullptr and why there is none yet. Asks, when it is new.
  Decision* find(const Question& about, uint64_t now_ns, Drop& why);

  // The client that was asked about, when the answer is in time.
  std::optional<FlowKey> answer(uint64_t id, const Rule& rule, Tenant* tenant, uint64_t now_ns);
  std::optional<FlowKey> fail(uint64_t id, uint64_t now_ns);

  // Clients whose time is over, who have the default from now on; forgets decisions that nobody uses.
  std::vector<FlowKey> expire(uint64_t now_ns);
  uint64_t next_expiry_ns() const;
  // After chains or rules have changed: who has no FWP is asked about anew.
  void refresh();

  // From another thread: what is to be asked, or nothing after that time or after stop().
  std::vector<Question> take_questions(uint64_t timeout_ns);
  void stop();

  DecisionCounters counters() const;
  uint64_t changes() const { return changes_; }  // decisions made so far

 private:
  Decision* waiting(uint64_t id);
  FlowKey decide(Decision& decision, const Rule& rule, Tenant* tenant, uint64_t now_ns);
  bool crowded(const Address& prefix) const;
  void stop_waiting(Decision& decision);
  void forget(Decision& decision);
  bool make_room();

  std::optional<DecisionSettings> settings_;
  std::unordered_map<FlowKey, std::unique_ptr<Decision>, ClientHash> clients_;
  std::unordered_map<uint64_t, Decision*> by_id_;
  DecisionList waiting_;  // the longest first
  std::unordered_map<Address, uint32_t, ClientHash> waiting_of_;  // by the networks of clients
  DecisionList made_;     // the longest unused first
  uint64_t ids_ = 0;
  uint64_t changes_ = 0;
  DecisionCounters counters_;

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Question> questions_;
  bool stopped_ = false;
};

}  // namespace edgeos
