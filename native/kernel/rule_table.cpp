#include "rule_table.hpp"

#include <algorithm>

namespace edgeos {
namespace {

bool comes_before(const Rule& a, const Rule& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.order < b.order;
}

auto find(const std::vector<std::unique_ptr<RuleEntry>>& entries, uint64_t id) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e->rule.id == id && !e->removed; });
}

}  // namespace

void RuleTable::add(const Rule& rule, Tenant* tenant) {
  const auto before = [](const Rule& r, const std::unique_ptr<RuleEntry>& e) { return comes_before(r, e->rule); };
  const auto place = std::upper_bound(entries_.begin(), entries_.end(), rule, before);
  entries_.insert(place, std::make_unique<RuleEntry>(RuleEntry{rule, 0, false, Rate(rule.new_clients), tenant}));
}

bool RuleTable::contains(uint64_t id) const { return find(entries_, id) != entries_.end(); }

void RuleTable::remove(uint64_t id) {
  const auto found = find(entries_, id);
  if (found == entries_.end()) return;
  (*found)->removed = true;
  if ((*found)->clients == 0) entries_.erase(found);
}

void RuleTable::set_order(uint64_t id, uint64_t order) {
  if (const auto found = find(entries_, id); found != entries_.end()) (*found)->rule.order = order;
}

void RuleTable::sort() {
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const auto& a, const auto& b) { return comes_before(a->rule, b->rule); });
}

void RuleTable::leave(RuleEntry& entry) {
  if (--entry.clients == 0 && entry.removed) erase(entry);
}

void RuleTable::erase(const RuleEntry& entry) {
  std::erase_if(entries_, [&](const auto& e) { return e.get() == &entry; });
}

}  // namespace edgeos
