// Parking: what a client's FWPs hold beyond their checkpoints is kept while the client is away, and laid over fresh FWPs when it
// comes back, before its first message. In between its FWPs serve others, clean as ever.
//
//   idle ──▶ park: the difference, in one block ──▶ resume: laid over ready FWPs ──▶ active
//                                               └─▶ dropped: for room, for time, or with its chain
//
// A block holds, stage by stage: number, bytes of memory, changed globals, timers, and the image of the memory. It belongs to
// one owner of one chain, one unit of isolation and one tenant, and is laid over for no other. Its bytes count for the chain's
// keep_memory and for the tenant's memory; where either is short, those that were parked longest are dropped. Dropped and
// resumed blocks are wiped. The time that all of this takes is charged to the tenant, and to the client that comes back; where a
// client gives way to another one, to the tenant of that one. An FWP that was killed is not parked.
//
// Owner: the dispatcher, on the data-plane thread; FWPs that it reads or writes have no message in flight, so none runs.
#pragma once

#include <unordered_map>

#include "chain.hpp"
#include "keyed_hash.hpp"
#include "parked_client.hpp"
#include "touched_pages.hpp"

namespace edgeos {

class TimerQueue;

class OwnerHash {  // strangers choose addresses
 public:
  size_t operator()(const FlowKey& key) const {
    const uint64_t a = fold(key.a.first ^ seed_[0], key.a.second ^ seed_[1]);
    const uint64_t b = fold(key.b.first ^ seed_[2], key.b.second ^ seed_[3]);
    return fold(a ^ key.transport ^ seed_[4], b ^ key.scope ^ seed_[5]);
  }

 private:
  uint64_t seed_[6] = {random_seed(), random_seed(), random_seed(), random_seed(), random_seed(), random_seed()};
};

class Parking {
 public:
  explicit Parking(TimerQueue& timers) : timers_(timers) {}

  // The state of an instance that is about to be released, at the cost of `payer`. False when nothing was kept, which is counted
  // where it is news.
  bool park(ChainInstance& instance, Tenant* payer, uint64_t now_ns);
  // What was parked for this owner, taken out; nullptr when there is nothing, or it is not this client's. It counts for nobody
  // until it is resumed or put back.
  std::unique_ptr<ParkedClient> take(const FlowKey& owner, Isolation isolation, const Tenant* tenant);
  // Lays it over the fresh FWPs of its owner's instance. False when that cannot be done: the instance's FWPs are then not to be used.
  bool resume(std::unique_ptr<ParkedClient> client, ChainInstance& instance, uint64_t now_ns);
  // Its owner was not let in.
  void put_back(std::unique_ptr<ParkedClient> client, uint64_t now_ns);

  void drop(ParkedClient& client, Unkept why);
  // Those that are parked for too long, at most so many of a chain.
  void expire(Chain& chain, uint64_t now_ns, uint32_t most);
  uint64_t next_expiry_ns(const Chain& chain) const;
  void drop_all(Chain& chain, Unkept why);

 private:
  struct Stage;  // of a block
  bool append_stage(const Fwp& fwp, const Pool& pool, size_t most);
  static bool take_stage(std::span<const uint8_t>& block, Stage& stage);
  bool lay_over_stage(const Stage& stage, Fwp& fwp);
  void enter(std::unique_ptr<ParkedClient> client);
  std::unique_ptr<ParkedClient> leave(ParkedClient& client);
  void keep_to_limit(Chain& chain);

  TimerQueue& timers_;
  std::unordered_map<FlowKey, std::unique_ptr<ParkedClient>, OwnerHash> clients_;
  TouchedPages touched_;
  std::vector<uint8_t> block_;  // that is being made
};

}  // namespace edgeos
