// Finds a connection by its flow number within a chain instance, or a flow of datagrams by its two ends.
//
// Owner: Streams. The data-plane thread alone changes it. The thread that runs guests looks flows up by `find_for_guest`, so
// changes and that call take a lock; the data plane's own look-ups take none.
#pragma once

#include <mutex>
#include <unordered_map>

#include "connection.hpp"
#include "keyed_hash.hpp"

namespace edgeos {

class FlowIndex {
 public:
  Connection* find(uint32_t instance, uint32_t flow) const {
    const auto found = flows_.find(key(instance, flow));
    return found == flows_.end() ? nullptr : found->second;
  }
  // From the thread that runs guests; `use` is called with the connection while it cannot go away.
  template <class F>
  bool find_for_guest(uint32_t instance, uint32_t flow, F&& use) {
    const std::lock_guard lock(mutex_);
    Connection* c = find(instance, flow);
    if (c != nullptr) use(*c);
    return c != nullptr;
  }
  bool insert(uint32_t instance, uint32_t flow, Connection& c) {
    const std::lock_guard lock(mutex_);
    return flows_.emplace(key(instance, flow), &c).second;
  }
  void erase(uint32_t instance, uint32_t flow) {
    const std::lock_guard lock(mutex_);
    flows_.erase(key(instance, flow));
  }

 private:
  struct Hash {  // of numbers that the kernel gives
    size_t operator()(uint64_t key) const { return fold(key, 0x9e3779b97f4a7c15); }
  };
  static uint64_t key(uint32_t instance, uint32_t flow) { return uint64_t{instance} << 32 | flow; }

  std::unordered_map<uint64_t, Connection*, Hash> flows_;
  std::mutex mutex_;
};

// Strangers choose addresses, so these tables are keyed.
class EndpointHash {
 public:
  size_t operator()(const Address& a) const { return fold(a.first ^ seed_[0], a.second ^ seed_[1]); }
  size_t operator()(const std::pair<Endpoint, Endpoint>& ends) const {
    const uint64_t ports = ends.first.port | uint64_t{ends.second.port} << 16;
    return fold((*this)(ends.first.address) ^ ports ^ seed_[2], (*this)(ends.second.address) ^ seed_[3]);
  }

 private:
  uint64_t seed_[4] = {random_seed(), random_seed(), random_seed(), random_seed()};
};

}  // namespace edgeos
