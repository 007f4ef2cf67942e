// The flow table against std::unordered_map: the same answers after any sequence of inserts, finds and erases.
#include "../kernel/flow_table.hpp"

#include <unistd.h>

#include <fstream>
#include <random>
#include <unordered_map>

#include "check.hpp"

using namespace edgeos;

namespace {

FlowKey key(uint64_t number) {
  FlowKey k{};
  k.a.second = number & 0xff;  // few different addresses: keys differ in single words
  k.b.second = number >> 8 & 0xff;
  k.set_transport(static_cast<uint16_t>(number >> 16), 53, 17, KeyKind::flow, 0);
  return k;
}

struct Model {
  FlowTable table;
  std::unordered_map<uint64_t, uint32_t> known;  // key's number -> entry

  explicit Model(uint32_t capacity) : table(capacity) {}

  void insert(uint64_t n) {
    const FlowKey k = key(n);
    const uint32_t entry = table.insert(k, table.hash(k), static_cast<uint32_t>(n), 7);
    CHECK_EQ(entry == kNoEntry, known.size() == table.capacity());
    if (entry != kNoEntry) known[n] = entry;
  }
  void erase(uint64_t n) {
    table.erase(known.at(n));
    known.erase(n);
  }
  void check(uint64_t n) const {
    const FlowKey k = key(n);
    const auto it = known.find(n);
    CHECK_EQ(table.find(k, table.hash(k)), it == known.end() ? kNoEntry : it->second);
  }
  void check_all(uint64_t range) {
    for (uint64_t n = 0; n < range; n++) check(n);
    for (const auto& [n, entry] : known) {
      CHECK(table[entry].key == key(n));
      CHECK_EQ(table[entry].instance, static_cast<uint32_t>(n));
    }
    CHECK_EQ(table.size(), known.size());
  }
};

void random_run(uint32_t capacity, uint64_t range, uint32_t steps) {
  Model model(capacity);
  std::mt19937_64 random(capacity);
  for (uint32_t i = 0; i < steps; i++) {
    const uint64_t n = random() % range;
    if (!model.known.contains(n)) {
      model.insert(n);
    } else if (random() % 2 == 0) {
      model.erase(n);
    }
    model.check(random() % range);
    if (i % (steps / 8) == 0) model.check_all(range);
  }
  model.check_all(range);
  while (!model.known.empty()) model.erase(model.known.begin()->first);
  model.check_all(range);
}

}  // namespace

TEST(tables_of_every_small_capacity) {
  for (uint32_t capacity = 1; capacity <= 20; capacity++) random_run(capacity, capacity * 3 / 2 + 1, 4000);
}

TEST(large_table) { random_run(3000, 4000, 100'000); }

TEST(full_table_refuses_and_stays_searchable) {
  Model model(64);
  for (uint64_t n = 0; n < 100; n++) model.insert(n);
  CHECK_EQ(model.known.size(), 64u);
  model.check_all(200);
  model.erase(10);
  model.insert(150);
  CHECK(model.known.contains(150));
  model.check_all(200);
}

TEST(an_entry_that_was_given_up_is_used_first) {
  FlowTable table(64);
  const auto insert = [&](uint64_t n) { return table.insert(key(n), table.hash(key(n)), 0, 0); };
  insert(1);
  const uint32_t second = insert(2);
  insert(3);
  table.erase(second);
  CHECK_EQ(insert(4), second);
}

uint64_t resident_bytes() {
  uint64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST(entries_take_memory_when_they_are_used) {
  constexpr uint32_t kCapacity = 1 << 20;
  const uint64_t before = resident_bytes();
  FlowTable table(kCapacity);
  for (uint64_t n = 0; n < 100; n++) table.insert(key(n), table.hash(key(n)), 0, 0);
  const uint64_t taken = resident_bytes() - before;
  CHECK(taken < kCapacity * sizeof(FlowEntry) / 2);  // that is the index
}

// Keys whose hashes collide are told apart, and an erased one leaves the others behind it reachable. Collisions are made
// by handing the table one hash for all; erase() follows the true hash, so only keys of one home slot can be erased.
TEST(one_hash_for_all_keys) {
  FlowTable table(32);
  std::vector<uint32_t> entries;
  for (uint64_t n = 0; n < 32; n++) entries.push_back(table.insert(key(n), 12345, static_cast<uint32_t>(n), 0));
  for (uint64_t n = 0; n < 32; n++) CHECK_EQ(table.find(key(n), 12345), entries[n]);
  CHECK_EQ(table.find(key(99), 12345), kNoEntry);
}

TEST(keys_of_one_home_slot_come_and_go) {
  FlowTable table(64);
  std::vector<uint64_t> same_home;
  for (uint64_t n = 0; same_home.size() < 24; n++)
    if ((table.hash(key(n)) & 127) == 126) same_home.push_back(n);  // they wrap around the end of the index
  std::vector<uint32_t> entries(same_home.size(), kNoEntry);
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; i++) {
    const size_t at = random() % same_home.size();
    const FlowKey k = key(same_home[at]);
    if (entries[at] == kNoEntry) {
      entries[at] = table.insert(k, table.hash(k), 0, 0);
    } else {
      table.erase(entries[at]);
      entries[at] = kNoEntry;
    }
    for (size_t j = 0; j < same_home.size(); j++)
      if (table.find(key(same_home[j]), table.hash(key(same_home[j]))) != entries[j]) CHECK(false);
  }
}

TEST(every_word_of_a_key_counts) {
  FlowTable table(64);
  std::vector<FlowKey> keys(7, FlowKey{});
  keys[1].a.first = 1;
  keys[2].a.second = 1;
  keys[3].b.first = 1;
  keys[4].b.second = 1;
  keys[5].transport = 1;
  keys[6].scope = 1;
  std::vector<uint32_t> entries;
  for (const FlowKey& k : keys) {
    CHECK_EQ(table.find(k, table.hash(k)), kNoEntry);
    entries.push_back(table.insert(k, table.hash(k), 0, 0));
  }
  for (size_t i = 0; i < keys.size(); i++) CHECK_EQ(table.find(keys[i], table.hash(keys[i])), entries[i]);
}

TEST(tables_hash_with_keys_of_their_own) { CHECK(FlowTable(4).hash(key(1)) != FlowTable(4).hash(key(1))); }
