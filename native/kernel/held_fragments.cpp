#include "held_fragments.hpp"

#include <algorithm>

#include "client_prefix.hpp"
#include "limits.hpp"

namespace edgeos {
namespace {

// Fragments are keyed by their own source first.
Address sender(const FlowKey& key) { return client_prefix(key.a); }

}  // namespace

bool HeldFragments::hold(uint16_t port, const Packet& packet, const FlowKey& key, uint64_t now_ns) {
  uint32_t& of_sender = senders_[sender(key)];
  of_sender++;  // before room is made: the newcomer counts, too
  const bool full = held_.size() == kHeldFragmentsMax;
  if (full) make_room();
  held_.push_back(Held{key, {packet.data, packet.data + packet.len}, packet.time_ns, now_ns + kHeldFragmentNs, &of_sender, port});
  return full;
}

std::vector<HeldFragments::Held> HeldFragments::take(const FlowKey& key) {
  std::vector<Held> taken;
  const auto of_others = [&](const Held& held) { return !(held.key == key); };
  const auto first = std::stable_partition(held_.begin(), held_.end(), of_others);
  for (auto held = first; held != held_.end(); ++held) {
    forget(*held);
    taken.push_back(std::move(*held));
  }
  held_.erase(first, held_.end());
  return taken;
}

uint32_t HeldFragments::expire(uint64_t now_ns) {
  const auto first = std::find_if(held_.begin(), held_.end(), [&](const Held& held) { return held.until_ns > now_ns; });
  const auto over = static_cast<uint32_t>(first - held_.begin());
  std::for_each(held_.begin(), first, [&](const Held& held) { forget(held); });
  held_.erase(held_.begin(), first);
  return over;
}

void HeldFragments::clear() {
  held_.clear();
  senders_.clear();
}

void HeldFragments::forget(const Held& held) {
  if (--*held.of_sender == 0) senders_.erase(sender(held.key));
}

void HeldFragments::make_room() {
  const auto less = [](const Held& a, const Held& b) { return *a.of_sender < *b.of_sender; };
  const auto heaviest = std::max_element(held_.begin(), held_.end(), less);  // of equals the oldest
  forget(*heaviest);
  held_.erase(heaviest);
}

}  // namespace edgeos
