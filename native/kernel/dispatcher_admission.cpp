// Who is let in: rules, callbacks' answers and quotas for clients that are not known yet, and instances that give way to them.
#include <algorithm>

#include "client_prefix.hpp"
#include "dispatcher.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kKindMask = 0xffull << 40;
constexpr uint32_t kEvictLooks = 64;     // longest idle instances looked at for one that may go

// Who is parked gives way to clients that are there, once nothing else stands against them.
bool admits(Tenant& tenant, uint64_t fwps, uint64_t memory, uint64_t now_ns, Drop& why) {
  if (tenant.admits_client(fwps, memory, now_ns, why)) return true;
  return why == Drop::tenant_memory && tenant.obtain_memory(memory) && tenant.admits_client(fwps, memory, now_ns, why);
}

}  // namespace

// In a chain that this port only leads out of, packets travel towards the client, and rules see them the other way round.
Dispatcher::Choice Dispatcher::choose(uint16_t port, const ParsedPacket& parsed, std::string_view server_name, Drop& why) const {
  for (const auto& entry : rules_.entries()) {
    const Rule& rule = entry->rule;
    Chain* chain = rule.action >= 0 ? chains_[static_cast<size_t>(rule.action)].get() : nullptr;
    if (chain != nullptr && (chain->closed() || !chain->spec().entries[port].open)) continue;
    const bool reverse = chain != nullptr ? chain->spec().entries[port].direction == kReverse : reverse_only_[port];
    if (!matches(rule, FlowView{parsed, reverse, port, server_name})) continue;
    why = Drop::rule;
    if (chain == nullptr) return {};
    const FlowKey key = owner_key(*chain, rule.isolation, FlowView{parsed, reverse, port, server_name});
    // A rule that was removed still holds for the clients that are there.
    if (entry->removed && (rule.isolation == Isolation::shared || table_.find(key, table_.hash(key)) == kNoEntry)) continue;
    return {chain, entry.get(), key};
  }
  why = Drop::no_rule;
  return decisions_.asks() && !draining_ ? decide(FlowView{parsed, reverse_only_[port], port, server_name}, why) : Choice{};
}

// What was answered about a client that no rule matches.
Dispatcher::Choice Dispatcher::decide(const FlowView& view, Drop& why) const {
  const ParsedPacket& parsed = view.packet;
  const Question about{0, client_key(view), view.peer(), view.client_port(), view.peer_port(), view.port,
                       parsed.protocol, parsed.ip_version, std::string(view.server_name)};
  Decision* decision = decisions_.find(about, now_ns_, why);
  if (decision == nullptr) return {};
  why = Drop::unmatched;
  const Rule& rule = decision->rule.rule;
  if (rule.action < 0) return {};
  Chain& chain = *chains_[static_cast<size_t>(rule.action)];
  const Entry& entry = chain.spec().entries[view.port];
  why = Drop::no_rule;
  if (chain.closed() || !entry.open) return {};
  const FlowKey key = owner_key(chain, rule.isolation, FlowView{parsed, entry.direction == kReverse, view.port, view.server_name});
  if (chain.retired() && table_.find(key, table_.hash(key)) == kNoEntry) return {};
  return {&chain, &decision->rule, key};
}

FlowKey Dispatcher::client_key(const FlowView& view) {
  FlowKey key{};
  key.a = view.client();
  key.set_transport(0, 0, 0, KeyKind::owner, view.packet.ip_version == 0);
  key.set_scope(view.packet.key.vlan(), view.packet.key.domain(), UINT16_MAX);
  return key;
}

// Keeps a message until there is an answer about its client; false when as many wait as may.
bool Dispatcher::wait(uint16_t port, const Packet& packet) {
  if (undecided_.size() >= kUndecidedMax || packet.len > kSlotSizeMax) return false;
  ParsedPacket parsed;
  parse_packet(packet.data, packet.len, domains_[port], parsed);
  const FlowKey key = client_key(FlowView{parsed, reverse_only_[port], port});
  const auto of_client = [&](const Undecided& held) { return held.client == key; };
  const Address prefix = client_prefix(key.a);
  const auto of_prefix = [&](const Undecided& held) { return client_prefix(held.client.a) == prefix; };
  if (std::count_if(undecided_.begin(), undecided_.end(), of_client) >= kUndecidedPerClient) return false;
  if (std::count_if(undecided_.begin(), undecided_.end(), of_prefix) >= kUndecidedPerPrefix) return false;
  undecided_.push_back(Undecided{key, {packet.data, packet.data + packet.len}, packet.time_ns, port});
  return true;
}

void Dispatcher::settle(const FlowKey& client) {
  std::vector<Undecided> its;
  for (Undecided& held : undecided_)
    if (held.client == client) its.push_back(std::move(held));
  std::erase_if(undecided_, [&](const Undecided& held) { return held.client == client; });
  for (const Undecided& held : its) dispatch_alone(held);
}

void Dispatcher::dispatch_alone(const Undecided& held) {
  const Packet packet{held.bytes.data(), static_cast<uint32_t>(held.bytes.size()), held.time_ns};
  FlowKey key;
  bool first_fragment = false;
  parse_key(packet.data, packet.len, domains_[held.port], key, first_fragment);
  const uint64_t hash = table_.hash(key);
  Drop why = Drop::no_rule;
  uint32_t entry = table_.find(key, hash);
  if (entry == kNoEntry) entry = bind(held.port, packet, hash, why);
  if (entry == kNoEntry) {
    refuse(why);
    return;
  }
  ChainInstance& instance = *instances_[table_[entry].instance];
  const uint32_t flow = table_[entry].flow;
  if (admit(held.port, &packet, &flow, 1, instance) == 0) refuse(Drop::ring_full);
  if (first_fragment) remember_fragments(held.port, packet, instance, flow);
}

uint32_t Dispatcher::bind(uint16_t port, const Packet& packet, uint64_t hash, Drop& why) {
  const uint64_t started_ns = monotonic_ns();
  ParsedPacket parsed;
  parse_packet(packet.data, packet.len, domains_[port], parsed);
  const Choice choice = choose(port, parsed, {}, why);
  if (choice.chain == nullptr) return kNoEntry;
  const uint32_t owner = find_or_activate(*choice.chain, *choice.rule, choice.owner, started_ns, why);
  // The flow that an ICMP error quotes may be another client's: it is not bound on this one's word.
  return owner == kNoEntry || parsed.quoted ? owner : add_flow(parsed.key, hash, owner);
}

ChainInstance* Dispatcher::admit(uint16_t port, const ParsedPacket& ends, std::string_view server_name, uint64_t serial,
                                 uint64_t now_ns, Drop& why) {
  now_ns_ = now_ns;
  const uint64_t started_ns = monotonic_ns();
  Choice choice = choose(port, ends, server_name, why);
  if (choice.chain == nullptr || choice.chain->is_wire()) return nullptr;  // connections end at guests
  if (choice.rule->rule.isolation == Isolation::flow) choice.owner.b = Address{serial, 0};
  const uint32_t owner = find_or_activate(*choice.chain, *choice.rule, choice.owner, started_ns, why);
  if (owner == kNoEntry) return nullptr;
  ChainInstance* instance = instances_[table_[owner].instance].get();
  instance->returns = choice.rule->rule.isolation == Isolation::client;
  why = Drop::blocked;
  if (instance->blocked) return nullptr;
  choice.chain->touch(*instance, now_ns);
  return instance;
}

FlowKey Dispatcher::owner_key(const Chain& chain, Isolation isolation, const FlowView& view) {
  FlowKey key{};
  if (isolation == Isolation::flow) key = view.packet.key;
  if (isolation == Isolation::client) {
    key.a = view.client();
    // The ethertype keeps Ethernet addresses apart from IP addresses.
    key.set_transport(0, 0, 0, KeyKind::owner, view.packet.ip_version == 0);
  }
  key.transport = (key.transport & ~kKindMask) | uint64_t(KeyKind::owner) << 40;
  key.set_scope(isolation == Isolation::shared ? 0 : view.packet.key.vlan(), chain.spec().domain, chain.spec().number);
  return key;
}

uint32_t Dispatcher::find_or_activate(Chain& chain, RuleEntry& rule, const FlowKey& key, uint64_t started_ns, Drop& why) {
  const uint64_t hash = table_.hash(key);
  const uint32_t found = table_.find(key, hash);
  if (found != kNoEntry) return found;
  std::unique_ptr<ParkedClient> parked;
  if (chain.spec().keep) parked = parking_.take(key, rule.rule.isolation, rule.tenant);
  if (!lets_in(chain, rule, parked != nullptr ? parked->memory : chain.memory(), why)) {
    if (parked != nullptr) parking_.put_back(std::move(parked), now_ns_);
    if (rule.tenant != nullptr) rule.tenant->refuse(why);
    return kNoEntry;
  }
  why = Drop::no_fwp;
  ChainInstance& instance = new_instance();
  instance.tenant = rule.tenant;
  if (!bind_client(chain, instance, parked)) {
    if (parked != nullptr) parking_.put_back(std::move(parked), now_ns_);
    instance.chain = nullptr;
    free_instances_.push_back(&instance);
    return kNoEntry;
  }
  instance.owner = key;
  instance.rule = &rule;
  instance.isolation = rule.rule.isolation;
  instance.returns = instance.isolation != Isolation::shared;
  rule.clients++;
  rule.new_clients.take(1, now_ns_);
  chain.new_clients.take(1, now_ns_);
  if (rule.tenant != nullptr) rule.tenant->enter_client(chain.spec().stages.size(), now_ns_);
  instance.activation_started_ns = started_ns;
  return table_.insert(key, hash, instance.number, 0);
}

// Gives a new client its FWPs, with what was parked for it. Where that cannot be laid over them it gets others, and begins anew.
bool Dispatcher::bind_client(Chain& chain, ChainInstance& instance, std::unique_ptr<ParkedClient>& parked) {
  if (!chain.bind(instance, now_ns_)) return false;
  if (parked == nullptr || parking_.resume(std::move(parked), instance, now_ns_)) return true;
  chain.unbind(instance);
  chain.counters.activations--;  // it is one all the same
  return chain.bind(instance, now_ns_);
}

// Whether a new client may come. What only looks comes first: nobody is evicted, and nothing that is parked dropped, for a
// client that is turned away.
bool Dispatcher::lets_in(Chain& chain, RuleEntry& rule, uint64_t memory, Drop& why) {
  why = Drop::draining;
  if (draining_) return false;
  why = Drop::max_clients;
  if (rule.rule.max_clients != 0 && rule.clients >= rule.rule.max_clients) return false;
  why = Drop::new_clients;
  if (!rule.new_clients.allows(now_ns_) || !chain.new_clients.allows(now_ns_)) return false;
  why = Drop::max_fwps;
  ChainInstance* leaving = chain.at_limit() ? find_one_to_evict(chain) : nullptr;
  if (chain.at_limit() && leaving == nullptr) return false;
  if (rule.tenant != nullptr && !admits(*rule.tenant, chain.spec().stages.size(), memory, now_ns_, why)) return false;
  if (leaving == nullptr) return true;
  leave(*leaving, rule.tenant);
  chain.counters.evicted++;
  return true;
}

ChainInstance* Dispatcher::find_one_to_evict(const Chain& chain) {
  if (chain.spec().when_full == WhenFull::refuse) return nullptr;
  for (ChainInstance* instance : {chain.longest_idle(), chain.longest_idle_connected()}) {
    for (uint32_t i = 0; instance != nullptr && i < kEvictLooks; i++, instance = instance->less_idle) {
      // A blocked client keeps its place: evicting it would let it in again at once.
      if (instance->in_flight == 0 && !instance->blocked) return instance;
    }
  }
  return nullptr;
}

}  // namespace edgeos
