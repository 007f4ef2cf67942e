#include "dispatcher.hpp"

#include <algorithm>

#include "prefetch.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kAhead = 4;           // packets between fetching what one of them needs and taking it up

}  // namespace

Dispatcher::Dispatcher(const std::vector<Port*>& ports, const std::vector<std::unique_ptr<Chain>>& chains, RuleTable& rules, Decisions& decisions,
                       Mma& mma, uint32_t max_flows, uint32_t max_instances)
    : ports_(ports),
      chains_(chains),
      rules_(rules),
      decisions_(decisions),
      mma_(mma),
      table_(max_flows + max_instances),
      max_flows_(max_flows),
      parking_(mma.timers()) {
  for (size_t i = 0; i < ports.size(); i++) bursts_.push_back(std::make_unique<Burst>());
  refresh();
}

void Dispatcher::add_port() {
  bursts_.push_back(std::make_unique<Burst>());
  refresh();
}

void Dispatcher::refresh() {
  domains_.assign(ports_.size(), 0);
  reverse_only_.assign(ports_.size(), false);
  asks_server_name_.assign(ports_.size(), false);
  for (const auto& entry : rules_.entries()) {
    const Rule& rule = entry->rule;
    if (rule.server_name.empty() || entry->removed) continue;
    for (size_t i = 0; i < ports_.size(); i++) {
      const bool there = rule.action < 0 || chains_[static_cast<size_t>(rule.action)]->spec().entries[i].open;
      if (there && (!rule.port || *rule.port == i)) asks_server_name_[i] = true;
    }
  }
  for (size_t i = 0; i < ports_.size(); i++) {
    bool forward = false, reverse = false;
    for (const auto& chain : chains_) {
      const Entry& entry = chain->spec().entries[i];
      if (!entry.open) continue;
      domains_[i] = chain->spec().domain;
      if (ports_[i]->as_listener() == nullptr) chain->enter_by_packets();
      (entry.direction == kForward ? forward : reverse) = true;
    }
    reverse_only_[i] = reverse && !forward;
  }
  for (const auto& instance : instances_)
    if (instance->chain != nullptr && instance->chain->is_wire()) release(*instance);
  const auto ends_flows = [](const auto& chain) { return chain->ends_flows(); };
  // All its room at once: to grow it takes long, and messages would wait.
  if (std::any_of(chains_.begin(), chains_.end(), ends_flows)) numbered_.reserve(max_flows_);
  drop_parked_of_gone();
  decisions_.refresh();
  cache_.clear();
  for (uint16_t port = 0; port < ports_.size(); port++) identify(port, *bursts_[port]);
}

// They cannot come back any more.
void Dispatcher::drop_parked_of_gone() {
  for (const auto& chain : chains_)
    if (draining_ || chain->closed() || chain->retired()) parking_.drop_all(*chain, Unkept::removed);
}

void Dispatcher::drain() {
  draining_ = true;
  drop_parked_of_gone();
}

bool Dispatcher::receive(uint64_t now_ns) {
  now_ns_ = now_ns;
  bool any = false;
  for (uint16_t port = 0; port < ports_.size(); port++) any |= receive_from(port);
  return any;
}

bool Dispatcher::receive_from(uint16_t port) {
  Burst& burst = *bursts_[port];
  if (burst.next == burst.count) {
    burst.next = 0;
    burst.count = ports_[port]->receive(burst.packets, kBurst);
    counters_.received += burst.count;
    pending_ += burst.count;
    identify(port, burst);
  }
  if (burst.count == burst.next) return false;
  const uint32_t before = burst.next;
  while (burst.next < burst.count) {
    const uint32_t taken = dispatch(port, burst);
    if (taken == 0) break;
    burst.next += taken;
    pending_ -= taken;
  }
  return burst.next != before;
}

// Finds out what can be known of all packets, so that what has to be fetched from memory is under way for all at once.
void Dispatcher::identify(uint16_t port, Burst& burst) {
  FlowCache::Line* lines[kBurst];
  for (uint32_t i = burst.next; i < burst.count; i++) {
    lines[i] = cache_.line_of(burst.packets[i].data, burst.packets[i].len);
    prefetch_line(lines[i]);
  }
  for (uint32_t i = burst.next; i < burst.count; i++) {
    burst.places[i] = FlowCache::find(lines[i], burst.packets[i].data, port);
    const ChainInstance* instance = burst.places[i].instance;
    if (instance == nullptr) {
      parse(port, burst, i);
    } else {
      prefetch_line(instance);
      prefetch_line(instance->fwps.data());
    }
  }
  for (uint32_t i = burst.next; i < burst.count; i++)
    if (const Fwp* fwp = likely_fwp(burst.places[i], port)) fwp->prefetch_record();
}

// The FWP that a packet will go to, as far as can be told.
const Fwp* Dispatcher::likely_fwp(const FlowPlace& place, uint16_t port) {
  const ChainInstance* instance = place.instance;
  if (instance == nullptr || instance->chain == nullptr || instance->chain->is_wire()) return nullptr;
  return instance->fwps[instance->chain->spec().entries[port].stage];
}

void Dispatcher::parse(uint16_t port, Burst& burst, uint32_t i) {
  Parsed& p = burst.parsed[i];
  burst.places[i] = {};
  p.valid = parse_key(burst.packets[i].data, burst.packets[i].len, domains_[port], p.key, p.first_fragment);
  p.hash = table_.hash(p.key);
  table_.prefetch(p.hash);
}

// Whether the cache knew a packet's place and that still holds.
bool Dispatcher::known(uint16_t port, Burst& burst, uint32_t i) {
  const FlowPlace& place = burst.places[i];
  if (place.instance == nullptr) return false;
  if (place.version == place.instance->flows_version) return true;
  parse(port, burst, i);
  return false;
}

// The place that an entry of the flow table gives, kept for the packets to come.
FlowPlace Dispatcher::enter(uint16_t port, Burst& burst, uint32_t i, uint32_t entry) {
  ChainInstance& instance = *instances_[table_[entry].instance];
  const FlowPlace place{&instance, instance.flows_version, table_[entry].flow};
  if (table_[entry].key.kind() == KeyKind::flow) cache_.keep(burst.packets[i].data, burst.packets[i].len, port, place);
  return place;
}

// Takes up the next packet, and with it those that follow for the same instance; 0 when it has to wait for room.
uint32_t Dispatcher::dispatch(uint16_t port, Burst& burst) {
  const uint32_t first = burst.next;
  if (first + kAhead < burst.count)
    if (const Fwp* fwp = likely_fwp(burst.places[first + kAhead], port)) fwp->prefetch();
  FlowPlace place = burst.places[first];
  if (!known(port, burst, first)) {
    const Parsed& parsed = burst.parsed[first];
    if (!parsed.valid) return refuse(Drop::malformed);
    uint32_t entry = table_.find(parsed.key, parsed.hash);
    if (entry == kNoEntry) {
      Drop why = Drop::fragment_orphan;
      if (parsed.key.kind() != KeyKind::fragment) {
        entry = bind(port, burst.packets[first], parsed.hash, why);
      } else if (burst.packets[first].len <= kSlotSizeMax) {
        if (held_.hold(port, burst.packets[first], parsed.key, now_ns_)) refuse(Drop::fragments_full);
        return 1;
      }
      if (entry == kNoEntry) return why == Drop::undecided && wait(port, burst.packets[first]) ? 1 : refuse(why);
    }
    place = enter(port, burst, first, entry);
  }
  ChainInstance& instance = *place.instance;
  uint32_t flows[kBurst];
  flows[0] = place.flow;
  uint32_t end = first + 1;
  for (; end < burst.count && !burst.first_fragment(end - 1); end++) {
    if (known(port, burst, end)) {
      place = burst.places[end];
    } else {
      const Parsed& parsed = burst.parsed[end];
      const uint32_t entry = parsed.valid ? table_.find(parsed.key, parsed.hash) : kNoEntry;
      if (entry == kNoEntry) break;
      place = enter(port, burst, end, entry);
    }
    if (place.instance != &instance) break;
    flows[end - first] = place.flow;
  }
  const uint32_t train = end - first;
  const uint32_t taken = admit(port, &burst.packets[first], flows, train, instance);
  if (taken == train && burst.first_fragment(end - 1))
    remember_fragments(port, burst.packets[end - 1], instance, flows[train - 1]);
  return taken;
}

// Copies messages into the instance's first ring, or drops them. Less than `count` only when a lossless port has to wait.
uint32_t Dispatcher::admit(uint16_t port, const Packet* packets, const uint32_t* flows, uint32_t count,
                           ChainInstance& instance) {
  Chain& chain = *instance.chain;
  const Entry& in = chain.spec().entries[port];
  if (!in.open) {
    counters_.dropped[size_t(Drop::no_entry)] += count;
    return count;
  }
  if (chain.is_wire()) return pass(packets, count, instance, in);
  const uint32_t room = std::min(count, chain.entry_room(instance));
  if (room < count && ports_[port]->lossless()) count = room;
  chain.counters.received += count;
  instance.in_flight += count;
  Drop why{};
  const uint32_t fits = instance.tenant == nullptr ? room : police(instance, packets, room, why);
  Fwp* fwp = instance.blocked ? nullptr : chain.fwp(instance, in.stage);
  if (fwp == nullptr) {
    const Drop missing = Chain::why_no_fwp(instance);
    if (missing == Drop::tenant_memory) instance.tenant->refuse(missing, count);
    chain.drop(instance, missing, count);
    return count;
  }
  chain.touch(instance, now_ns_);
  chain.drop(instance, Drop::oversize, mma_.copy_in(*fwp, packets, flows, fits, in));
  chain.drop(instance, Drop::ring_full, count - room);
  chain.drop(instance, why, room - fits);
  return count;
}

// How many of these messages the tenant's quotas let in, and why the others not.
uint32_t Dispatcher::police(ChainInstance& instance, const Packet* packets, uint32_t count, Drop& why) const {
  Tenant& tenant = *instance.tenant;
  uint32_t allowed = 0;
  for (; allowed < count && tenant.admits(now_ns_, why); allowed++) tenant.enter(packets[allowed].len, now_ns_);
  tenant.refuse(why, count - allowed);
  return allowed;
}

// A chain without stages: onward as it is.
uint32_t Dispatcher::pass(const Packet* packets, uint32_t count, ChainInstance& instance, const Entry& in) {
  Chain& chain = *instance.chain;
  chain.counters.received += count;
  instance.in_flight += count;
  instance.activation_started_ns = 0;
  chain.touch(instance, now_ns_);
  Drop why{};
  const uint32_t allowed = instance.tenant == nullptr ? count : police(instance, packets, count, why);
  chain.drop(instance, why, count - allowed);
  uint32_t sent = 0;
  for (uint32_t i = 0; i < allowed; i++) sent += ports_[in.stage]->send(packets[i].data, packets[i].len, packets[i].time_ns);
  chain.finish_sent(instance, sent);
  chain.drop(instance, Drop::tx_full, allowed - sent);
  return count;
}

uint32_t Dispatcher::refuse(Drop reason) {
  counters_.dropped[size_t(reason)]++;
  return 1;
}

}  // namespace edgeos
