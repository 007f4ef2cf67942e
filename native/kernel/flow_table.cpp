#include "flow_table.hpp"

#include <bit>

#include "keyed_hash.hpp"

namespace edgeos {

FlowTable::FlowTable(uint32_t capacity)
    : index_(std::bit_ceil(uint64_t{capacity} * 3 / 2 + 1)), entries_(uint64_t{capacity} + 1), mask_(index_.size() - 1) {
  for (uint64_t& s : seed_) s = random_seed();
}

uint64_t FlowTable::hash(const FlowKey& key) const {
  const uint64_t x = fold(key.a.first ^ seed_[0], key.a.second ^ seed_[1]) ^
                     fold(key.b.first ^ seed_[2], key.b.second ^ seed_[3]) ^
                     fold(key.transport ^ seed_[4], key.scope ^ seed_[5]);
  return fold(x ^ seed_[1], seed_[4]);
}

uint32_t FlowTable::find(const FlowKey& key, uint64_t hash) const {
  const auto tag = static_cast<uint32_t>(hash);
  for (uint64_t i = hash & mask_;; i = (i + 1) & mask_) {
    const Slot& slot = index_[i];
    if (slot.entry == kNoEntry) return kNoEntry;
    if (slot.hash == tag && entries_[slot.entry].key == key) return slot.entry;
  }
}

uint32_t FlowTable::insert(const FlowKey& key, uint64_t hash, uint32_t instance, uint32_t flow) {
  if (size_ == capacity()) return kNoEntry;
  const uint32_t entry = free_.empty() ? untouched_++ : free_.back();
  if (!free_.empty()) free_.pop_back();
  entries_[entry] = FlowEntry{key, instance, flow, kNoEntry, kNoEntry};
  uint64_t i = hash & mask_;
  while (index_[i].entry != kNoEntry) i = (i + 1) & mask_;
  index_[i] = Slot{static_cast<uint32_t>(hash), entry};
  size_++;
  return entry;
}

uint64_t FlowTable::find_slot(uint32_t entry) const {
  uint64_t i = hash(entries_[entry].key) & mask_;
  while (index_[i].entry != entry) i = (i + 1) & mask_;
  return i;
}

void FlowTable::erase(uint32_t entry) {
  uint64_t hole = find_slot(entry);
  // Later slots of the probe sequence move up, so that no search ends early at the hole.
  for (uint64_t i = (hole + 1) & mask_; index_[i].entry != kNoEntry; i = (i + 1) & mask_) {
    const uint64_t home = index_[i].hash & mask_;
    if (((i - home) & mask_) >= ((i - hole) & mask_)) {
      index_[hole] = index_[i];
      hole = i;
    }
  }
  index_[hole].entry = kNoEntry;
  free_.push_back(entry);
  size_--;
}

}  // namespace edgeos
