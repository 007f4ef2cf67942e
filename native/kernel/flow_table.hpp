// Maps flows, datagrams in fragments and owners (clients) to chain instances: open addressing with linear probing over
// 8-byte index slots, entries of one cache line. Keyed hash, so that clients cannot choose collisions.
//
// Owner: the worker's dispatcher; not thread-safe. Fixed capacity. The index is there from the start; entries take memory when
// they are used for the first time, and the last one that was given up is used first.
#pragma once

#include <cstdint>
#include <vector>

#include "lazy_array.hpp"
#include "packet_parser.hpp"
#include "prefetch.hpp"

namespace edgeos {

inline constexpr uint32_t kNoEntry = 0;

struct alignas(64) FlowEntry {
  FlowKey key;
  uint32_t instance;  // number of the chain instance
  uint32_t flow;      // number of the flow within it; 0 for owners
  uint32_t older;     // the instance's next older entry, kNoEntry at the end
  uint32_t newer;
};
static_assert(sizeof(FlowEntry) == 64);

class FlowTable {
 public:
  explicit FlowTable(uint32_t capacity);

  uint64_t hash(const FlowKey& key) const;
  void prefetch(uint64_t hash) const { prefetch_line(&index_[hash & mask_]); }

  // Number of the entry, or kNoEntry.
  uint32_t find(const FlowKey& key, uint64_t hash) const;
  // Adds a key that is not there; kNoEntry when the table is full.
  uint32_t insert(const FlowKey& key, uint64_t hash, uint32_t instance, uint32_t flow);
  void erase(uint32_t entry);

  FlowEntry& operator[](uint32_t entry) { return entries_[entry]; }
  uint32_t size() const { return size_; }
  uint32_t capacity() const { return static_cast<uint32_t>(entries_.size() - 1); }

 private:
  struct Slot {
    uint32_t hash;
    uint32_t entry;  // kNoEntry: free
  };
  uint64_t find_slot(uint32_t entry) const;

  std::vector<Slot> index_;
  LazyArray<FlowEntry> entries_;
  std::vector<uint32_t> free_;  // that were used before
  uint32_t untouched_ = kNoEntry + 1;  // the first that never was
  uint64_t mask_;
  uint32_t size_ = 0;
  uint64_t seed_[6];
};

}  // namespace edgeos
