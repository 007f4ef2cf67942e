#include "chain.hpp"

#include <algorithm>
#include <cstring>

namespace edgeos {

uint64_t read_counter(const Fwp& fwp, const CounterLayout& counter) {
  uint64_t value;
  std::memcpy(&value, fwp.memory + counter.address, sizeof value);
  return value;
}

Chain::Chain(ChainSpec spec)
    : new_clients(spec.new_clients),
      stage_counters(spec.stages.size()),
      departed(spec.stages.size()),
      spec_(std::move(spec)),
      credit_(kSlotsMax),
      entry_credit_(0),
      touch_grain_ns_(spec_.idle_timeout_ns / 16) {
  bool emits = false;
  for (size_t i = 0; i < spec_.stages.size(); i++) {
    emits |= spec_.stages[i].pool->tmpl().emits();
    closes_flows_ |= spec_.stages[i].pool->tmpl().closes_flows();
    const Layout& layout = spec_.stages[i].pool->tmpl().layout();
    credit_ = std::min(credit_, layout.slots);
    memory_ += layout.memory;
    departed[i].resize(layout.counters.size());
    auto& upstream = spec_.stages[i].routes[kUpstream];
    upstream[size_t(kVerdictBack + 2)].kind = Destination::Kind::upstream;
    upstream[size_t(kVerdictDrop + 2)].kind = Destination::Kind::drop;
  }
  entry_credit_ = emits ? credit_ / 2 : credit_;
  if (spec_.keep) parking_times = std::make_unique<ParkingTimes>();
}

bool Chain::bind(ChainInstance& instance, uint64_t now_ns) {
  instance.chain = this;
  for (uint8_t i = 0; i < spec_.stages.size(); i++) {
    if (replace(instance, i) == nullptr) {
      for (uint8_t j = 0; j < i; j++) retire(*instance.fwps[j]);
      return false;
    }
  }
  link_at_back(instance, now_ns);
  instances_++;
  counters.activations++;
  return true;
}

Fwp* Chain::replace(ChainInstance& instance, uint8_t stage) {
  Pool& pool = *spec_.stages[stage].pool;
  Tenant* tenant = instance.tenant;
  if (tenant != nullptr && !tenant->obtain_memory(pool.tmpl().layout().memory)) return nullptr;
  Fwp* fwp = pool.take();
  if (fwp == nullptr) return nullptr;
  fwp->prefetch();
  fwp->activate(&instance, stage);
  if (tenant != nullptr) tenant->bind(*fwp);
  instance.fwps[stage] = fwp;
  counters.peak = std::max(counters.peak, ++counters.live);
  return fwp;
}

Drop Chain::why_no_fwp(const ChainInstance& instance) {
  if (instance.blocked) return Drop::blocked;
  const std::vector<StageSpec>& stages = instance.chain->spec().stages;
  for (size_t i = 0; instance.tenant != nullptr && i < stages.size(); i++)
    if (instance.fwps[i] == nullptr && !instance.tenant->has_memory(stages[i].pool->tmpl().layout().memory))
      return Drop::tenant_memory;
  return Drop::no_fwp;
}

void Chain::recall_counters(const Fwp& fwp) {
  const std::vector<CounterLayout>& layout = fwp.tmpl().layout().counters;
  for (size_t i = 0; i < layout.size(); i++) departed[fwp.stage][i] -= read_counter(fwp, layout[i]);
}

void Chain::retire(Fwp& fwp) {
  const std::vector<CounterLayout>& layout = fwp.tmpl().layout().counters;
  for (size_t i = 0; i < layout.size(); i++) departed[fwp.stage][i] += read_counter(fwp, layout[i]);
  Pool& pool = *spec_.stages[fwp.stage].pool;
  if (fwp.owner->tenant != nullptr) fwp.owner->tenant->unbind(fwp);
  fwp.owner->fwps[fwp.stage] = nullptr;
  fwp.retire();
  pool.give_back(&fwp);
  counters.live--;
}

void Chain::kill(Fwp& fwp, Kill cause) {
  ChainInstance& instance = *fwp.owner;
  counters.kills[size_t(cause)]++;
  drop(instance, Drop::killed, fwp.ring.size());
  fwp.ring.head = fwp.ring.tail;
  if (spec_.on_kill == OnKill::block) instance.blocked = true;
  retire(fwp);
}

void Chain::unbind(ChainInstance& instance) {
  for (uint8_t i = 0; i < spec_.stages.size(); i++) {
    Fwp* fwp = instance.fwps[i];
    if (fwp == nullptr) continue;
    drop(instance, Drop::evicted, fwp->ring.size());
    retire(*fwp);
  }
  unlink(instance);
  instances_--;
}

void Chain::unlink(ChainInstance& instance) {
  Order& by_use = order(instance);
  (instance.more_idle != nullptr ? instance.more_idle->less_idle : by_use.most) = instance.less_idle;
  (instance.less_idle != nullptr ? instance.less_idle->more_idle : by_use.least) = instance.more_idle;
  instance.more_idle = instance.less_idle = nullptr;
}

void Chain::link_at_back(ChainInstance& instance, uint64_t now_ns) {
  instance.last_used_ns = now_ns;
  Order& by_use = order(instance);
  instance.more_idle = by_use.least;
  (by_use.least != nullptr ? by_use.least->less_idle : by_use.most) = &instance;
  by_use.least = &instance;
}

void Chain::set_connected(ChainInstance& instance, bool connected, uint64_t now_ns) {
  unlink(instance);
  instance.connected = connected;
  link_at_back(instance, now_ns);
}

void Chain::move_to_back(ChainInstance& instance, uint64_t now_ns) {
  unlink(instance);
  link_at_back(instance, now_ns);
}

}  // namespace edgeos
