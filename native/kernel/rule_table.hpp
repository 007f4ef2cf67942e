// The rules in the order in which they are asked: the higher priority first, then the order of writing.
//
// Owner: the worker; not thread-safe. A rule that is removed goes on holding for the clients that it let in, until the last of
// them has left; entries stay where they are in memory as long as that.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "rate.hpp"
#include "rule.hpp"

namespace edgeos {

class Tenant;

struct RuleEntry {
  Rule rule;
  uint64_t clients = 0;  // chain instances that it let in and that live
  bool removed = false;
  Rate new_clients;
  Tenant* tenant = nullptr;
};

class RuleTable {
 public:
  RuleTable() = default;
  RuleTable(const RuleTable&) = delete;
  RuleTable& operator=(const RuleTable&) = delete;

  void add(const Rule& rule, Tenant* tenant = nullptr);
  bool contains(uint64_t id) const;  // and it is not removed
  void remove(uint64_t id);
  // Gives a rule another place among those of its priority; sort() must follow.
  void set_order(uint64_t id, uint64_t order);
  void sort();

  // A client that the entry let in has left.
  void leave(RuleEntry& entry);

  const std::vector<std::unique_ptr<RuleEntry>>& entries() const { return entries_; }

 private:
  void erase(const RuleEntry& entry);

  std::vector<std::unique_ptr<RuleEntry>> entries_;
};

}  // namespace edgeos
