// The lives of chain instances and their entries in the flow table: from record to record, and until their time is over.
#include <algorithm>

#include "dispatcher.hpp"
#include "streams.hpp"

namespace edgeos {

// The flow's own entry, or the owner's when the table is full: flow entries only save the way through the rules.
uint32_t Dispatcher::add_flow(const FlowKey& key, uint64_t hash, uint32_t owner_entry) {
  ChainInstance& instance = *instances_[table_[owner_entry].instance];
  const uint32_t most = instance.isolation == Isolation::shared ? max_flows_ : kFlowsPerClientMax;
  if (instance.flow_count >= most || flow_entries_ >= max_flows_) {
    if (instance.flow_count == 0) return owner_entry;
    erase_entry(instance, instance.oldest);
  }
  const uint32_t entry = table_.insert(key, hash, instance.number, instance.next_flow());
  link_entry(instance, entry);
  return entry;
}

void Dispatcher::remember_fragments(uint16_t port, const Packet& first, ChainInstance& instance, uint32_t flow) {
  ParsedPacket parsed;
  parse_packet(first.data, first.len, domains_[port], parsed);
  if (parsed.quoted) return;  // an ICMP error may not enter its own datagram among another client's flows
  const FlowKey key = fragment_key(parsed);
  const uint64_t hash = table_.hash(key);
  // Identifications are used again: whatever an earlier datagram left under this one is over.
  if (const uint32_t known = table_.find(key, hash); known != kNoEntry)
    erase_entry(*instances_[table_[known].instance], known);
  const uint32_t entry = add_flow(key, hash, table_.find(instance.owner, table_.hash(instance.owner)));
  if (table_[entry].key.kind() != KeyKind::fragment) return;  // no room: the later ones will be orphans
  table_[entry].flow = flow;
  for (const HeldFragments::Held& held : held_.take(key)) {
    const Packet packet{held.bytes.data(), static_cast<uint32_t>(held.bytes.size()), held.time_ns};
    if (admit(held.port, &packet, &flow, 1, instance) == 0) refuse(Drop::fragment_orphan);
  }
}

void Dispatcher::expire(uint64_t now_ns, uint32_t most) {
  now_ns_ = now_ns;
  for (const FlowKey& client : decisions_.expire(now_ns)) settle(client);
  drop_parked_of_gone();
  for (const auto& chain : chains_) {
    parking_.expire(*chain, now_ns, most);
    const uint64_t started_ns = chain->spec().keep ? monotonic_ns() : 0;
    for (uint32_t i = 0; i < most; i++) {
      ChainInstance* instance = chain->longest_idle();
      if (instance == nullptr && chain->closed()) instance = chain->longest_idle_connected();
      if (instance == nullptr || instance->last_used_ns + chain->idle_timeout_ns() > now_ns) break;
      if (instance->in_flight > 0) {
        chain->touch(*instance, now_ns);
        break;
      }
      leave(*instance, instance->tenant);
      chain->counters.expired++;
      if (chain->spec().keep && monotonic_ns() - started_ns > kRunNs) break;  // large memories: the others in the next turn
    }
  }
  counters_.dropped[size_t(Drop::fragment_orphan)] += held_.expire(now_ns);
}

uint64_t Dispatcher::next_expiry_ns() const {
  uint64_t next = UINT64_MAX;
  for (const auto& chain : chains_) {
    const ChainInstance* i = chain->longest_idle();
    if (i == nullptr && chain->closed()) i = chain->longest_idle_connected();
    if (i != nullptr) next = std::min(next, i->last_used_ns + chain->idle_timeout_ns());
    next = std::min(next, parking_.next_expiry_ns(*chain));
  }
  return std::min({next, held_.next_expiry_ns(), decisions_.next_expiry_ns()});
}

void Dispatcher::shut_down() {
  counters_.dropped[size_t(Drop::evicted)] += held_.size() + undecided_.size() + pending_;
  held_.clear();
  undecided_.clear();
  pending_ = 0;
  for (auto& burst : bursts_) burst->next = burst->count = 0;
  for (const auto& instance : instances_)
    if (instance->chain != nullptr) release(*instance);
  for (const auto& chain : chains_) parking_.drop_all(*chain, Unkept::removed);
}

bool Dispatcher::exhausted() const {
  return pending_ == 0 && std::all_of(ports_.begin(), ports_.end(), [](const Port* p) { return p->exhausted(); });
}

ChainInstance& Dispatcher::new_instance() {
  if (free_instances_.empty()) {
    instances_.push_back(std::make_unique<ChainInstance>());
    instances_.back()->number = static_cast<uint32_t>(instances_.size() - 1);
    return *instances_.back();
  }
  ChainInstance* instance = free_instances_.back();
  free_instances_.pop_back();
  const uint32_t number = instance->number, version = instance->flows_version;
  *instance = ChainInstance{};
  instance->number = number;
  instance->flows_version = version;
  return *instance;
}

void Dispatcher::expire_now(ChainInstance& instance) {
  instance.chain->counters.expired++;
  release(instance);
}

// It has been idle; what it holds is parked, at the cost of `payer`, where its chain keeps clients that may still come back.
void Dispatcher::leave(ChainInstance& instance, Tenant* payer) {
  Chain& chain = *instance.chain;
  Tenant* tenant = instance.tenant;
  const bool may_return = !draining_ && !chain.closed() && !chain.retired() && (tenant == nullptr || !tenant->removed());
  if (chain.spec().keep && may_return) parking_.park(instance, payer, now_ns_);
  release(instance);
  if (tenant != nullptr) tenant->obtain_memory(0);  // what was parked may take a little more than what its FWPs had
}

void Dispatcher::release(ChainInstance& instance) {
  if (streams_ != nullptr) streams_->leave(instance);
  while (instance.flow_count > 0) erase_entry(instance, instance.oldest);
  table_.erase(table_.find(instance.owner, table_.hash(instance.owner)));
  instance.chain->unbind(instance);
  if (instance.tenant != nullptr) instance.tenant->leave_client(instance.chain->spec().stages.size());
  rules_.leave(*instance.rule);
  forget_places(instance);
  instance.chain = nullptr;
  free_instances_.push_back(&instance);
}

void Dispatcher::link_entry(ChainInstance& instance, uint32_t entry) {
  table_[entry].older = instance.newest;
  (instance.newest != kNoEntry ? table_[instance.newest].newer : instance.oldest) = entry;
  instance.newest = entry;
  instance.flow_count++;
  flow_entries_++;
}

void Dispatcher::erase_entry(ChainInstance& instance, uint32_t entry) {
  FlowEntry& e = table_[entry];
  (e.older != kNoEntry ? table_[e.older].newer : instance.oldest) = e.newer;
  (e.newer != kNoEntry ? table_[e.newer].older : instance.newest) = e.older;
  table_.erase(entry);
  instance.flow_count--;
  flow_entries_--;
  forget_places(instance);
}

// Whatever the cache says of this instance holds no more.
void Dispatcher::forget_places(ChainInstance& instance) {
  instance.flows_version = ++versions_;
  if (versions_ == 0) cache_.clear();  // numbers are given again from now on
}

}  // namespace edgeos
