// The lives of chain instances and their entries in the flow table: from record to record, and until their time is over.
#include <algorithm>

#include "dispatcher.hpp"
#include "streams.hpp"

namespace edgeos {
namespace {

uint64_t number_of(const ChainInstance& instance, uint32_t flow) { return uint64_t{instance.number} << 32 | flow; }

}  // namespace

// The flow's own entry, or the owner's when the table is full: flow entries only save the way through the rules.
uint32_t Dispatcher::add_flow(const FlowKey& key, uint64_t hash, uint32_t owner_entry) {
  ChainInstance& instance = *instances_[table_[owner_entry].instance];
  const uint32_t most = instance.isolation == Isolation::shared ? max_flows_ : kFlowsPerClientMax;
  if (instance.flow_count >= most || flow_entries_ >= max_flows_) {
    if (instance.flow_count == 0) {
      instance.untracked = true;
      let_stay(instance);
      return owner_entry;
    }
    instance.untracked |= table_[instance.oldest].key.kind() == KeyKind::flow;
    erase_entry(instance, instance.oldest);
  }
  const uint32_t flow = instance.next_flow();
  const uint32_t entry = table_.insert(key, hash, instance.number, flow);
  if (key.kind() == KeyKind::flow && instance.chain->ends_flows()) numbered_.emplace(number_of(instance, flow), entry);
  link_entry(instance, entry);
  return entry;
}

// A flow of which messages are still on their way to the guest goes on: with one of them it may have begun anew for the guest,
// which would otherwise get the rest of it under another number, or lose what it holds of it.
void Dispatcher::end_flows(const Fwp& by, std::span<const uint32_t> flows) {
  ChainInstance& instance = *by.owner;
  for (const uint32_t flow : flows) {
    const auto found = numbered_.find(number_of(instance, flow));
    if (found != numbered_.end() && !is_awaited(instance, by.stage, flow)) erase_entry(instance, found->second);
  }
  const bool last = instance.flow_count == instance.datagrams && instance.streams.connections.empty();
  if (last && !instance.untracked && instance.isolation != Isolation::shared) let_go(instance);
}

// In a line they are in the stage's own ring, or come from the stages before or behind it.
bool Dispatcher::is_awaited(const ChainInstance& instance, uint8_t stage, uint32_t flow) {
  if (instance.in_flight == 0) return false;
  for (uint8_t at = 0; at < instance.chain->spec().stages.size(); at++) {
    const Fwp* fwp = instance.fwps[at];
    if (fwp == nullptr) continue;
    const uint8_t towards = at < stage ? kForward : kReverse;
    for (uint32_t next = fwp->ring.head; next != fwp->ring.tail; next++) {
      const MessageMeta& message = fwp->meta[fwp->ring.index(next)];
      if (message.flow() == flow && (at == stage || message.direction() == towards)) return true;
    }
  }
  return false;
}

void Dispatcher::let_go(ChainInstance& instance) {
  if (instance.leaving) return;
  instance.leaving = true;
  leaving_.push_back(instance);
}

void Dispatcher::let_stay(ChainInstance& instance) {
  if (!instance.leaving) return;
  instance.leaving = false;
  leaving_.remove(instance);
}

// Not a client that would be rid of its debt, or let in again though its FWP was killed, by coming back at once. With an FWP for
// each flow its other ports would get it that too.
bool Dispatcher::may_end(const ChainInstance& instance) {
  return !instance.returns || (!instance.blocked && (instance.debt_ns == 0 || instance.isolation == Isolation::flow));
}

void Dispatcher::end_those_that_leave() {
  if (leaving_.empty()) return;
  const uint64_t until_ns = monotonic_ns() + kRunNs;  // parking large memories takes long: the others in the next turn
  for (ChainInstance *instance = leaving_.front(), *next; instance != nullptr; instance = next) {
    next = LeavingList::next(*instance);
    if (instance->in_flight > 0 || instance->stays_until_ns > now_ns_) continue;
    let_stay(*instance);
    if (!may_end(*instance)) continue;
    instance->chain->counters.expired++;
    leave(*instance, instance->tenant);
    if (monotonic_ns() >= until_ns) break;
  }
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
  end_those_that_leave();
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
  for (const ChainInstance* i = leaving_.front(); i != nullptr; i = LeavingList::next(*i))
    if (i->in_flight == 0) next = std::min(next, std::max(now_ns_, i->stays_until_ns));
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

// It has been idle, or its last flow is over; what it holds is parked, at the cost of `payer`, where its chain keeps clients that may
// still come back.
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
  let_stay(instance);
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
  let_stay(instance);
  instance.datagrams += table_[entry].key.kind() == KeyKind::fragment;
  table_[entry].older = instance.newest;
  (instance.newest != kNoEntry ? table_[instance.newest].newer : instance.oldest) = entry;
  instance.newest = entry;
  instance.flow_count++;
  flow_entries_++;
}

void Dispatcher::erase_entry(ChainInstance& instance, uint32_t entry) {
  FlowEntry& e = table_[entry];
  const bool is_flow = e.key.kind() == KeyKind::flow;
  if (is_flow && instance.chain->ends_flows()) numbered_.erase(number_of(instance, e.flow));
  instance.datagrams -= !is_flow;
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
