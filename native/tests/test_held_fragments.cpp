// Fragments that wait for their first one, against a plain model: who has most gives way, and nobody is forgotten.
#include "../kernel/held_fragments.hpp"

#include <algorithm>
#include <map>
#include <random>

#include "../kernel/limits.hpp"
#include "check.hpp"

using namespace edgeos;

namespace {

FlowKey datagram(uint64_t sender, uint16_t identification) {
  FlowKey key{};
  key.a = Address{sender, 0};
  key.set_transport(0, identification, 17, KeyKind::fragment, 0);
  return key;
}

struct Waiting {
  FlowKey key;
  uint64_t until_ns;
};

}  // namespace

TEST(a_model_agrees_on_who_waits_and_who_gives_way) {
  HeldFragments held;
  std::vector<Waiting> model;  // the oldest first
  std::mt19937_64 random(7);
  uint8_t byte = 0;
  for (uint64_t now_ns = 1; now_ns < 40'000; now_ns++) {
    const uint64_t sender = random() % 100 < 60 ? 1 : random() % 40;  // one of them sends most
    const FlowKey key = datagram(sender, static_cast<uint16_t>(random() % 8));
    if (random() % 50 == 0) {
      const auto taken = held.take(key);
      const auto its = [&](const Waiting& w) { return w.key == key; };
      CHECK_EQ(taken.size(), static_cast<size_t>(std::count_if(model.begin(), model.end(), its)));
      std::erase_if(model, its);
      continue;
    }
    byte++;
    const Packet packet{&byte, 1, 0};
    std::map<uint64_t, uint32_t> counts;
    for (const Waiting& w : model) counts[w.key.a.first]++;
    counts[sender]++;
    const bool full = model.size() == kHeldFragmentsMax;
    CHECK_EQ(held.hold(0, packet, key, now_ns * 1'000'000), full);
    if (full) {
      const auto less = [&](const Waiting& a, const Waiting& b) { return counts[a.key.a.first] < counts[b.key.a.first]; };
      model.erase(std::max_element(model.begin(), model.end(), less));
    }
    model.push_back({key, now_ns * 1'000'000 + kHeldFragmentNs});
    const auto over = [&](const Waiting& w) { return w.until_ns <= now_ns * 1'000'000; };
    if (now_ns % 64 == 0) CHECK_EQ(held.expire(now_ns * 1'000'000), static_cast<uint32_t>(std::erase_if(model, over)));
    CHECK_EQ(held.size(), static_cast<uint32_t>(model.size()));
  }
  CHECK_EQ(held.next_expiry_ns(), model.front().until_ns);
  held.clear();
  CHECK_EQ(held.next_expiry_ns(), UINT64_MAX);
}
