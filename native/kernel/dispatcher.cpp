#include "dispatcher.hpp"

#include <algorithm>

#include "client_prefix.hpp"
#include "prefetch.hpp"
#include "streams.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kKindMask = 0xffull << 40;
constexpr uint32_t kAhead = 4;           // packets between fetching what one of them needs and taking it up
constexpr uint32_t kEvictLooks = 64;     // longest idle instances looked at for one that may go
constexpr uint32_t kParkShare = 4;       // one instance is parked in the time for so many to be ended

// Who is parked gives way to clients that are there, once nothing else stands against them.
bool admits(Tenant& tenant, uint64_t fwps, uint64_t memory, uint64_t now_ns, Drop& why) {
  if (tenant.admits_client(fwps, memory, now_ns, why)) return true;
  return why == Drop::tenant_memory && tenant.obtain_memory(memory) && tenant.admits_client(fwps, memory, now_ns, why);
}

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
      (entry.direction == kForward ? forward : reverse) = true;
    }
    reverse_only_[i] = reverse && !forward;
  }
  for (const auto& instance : instances_)
    if (instance->chain != nullptr && instance->chain->is_wire()) release(*instance);
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
  if (parked == nullptr || parking_.resume(std::move(parked), instance)) return true;
  chain.unbind(instance);
  return chain.bind(instance, now_ns_);
}

// Whether a new client may come. What only looks comes first: nobody is evicted for a client that is turned away.
bool Dispatcher::lets_in(Chain& chain, RuleEntry& rule, uint64_t memory, Drop& why) {
  why = Drop::draining;
  if (draining_) return false;
  why = Drop::max_clients;
  if (rule.rule.max_clients != 0 && rule.clients >= rule.rule.max_clients) return false;
  why = Drop::new_clients;
  if (!rule.new_clients.allows(now_ns_) || !chain.new_clients.allows(now_ns_)) return false;
  if (rule.tenant != nullptr && !admits(*rule.tenant, chain.spec().stages.size(), memory, now_ns_, why)) return false;
  why = Drop::max_fwps;
  return !chain.at_limit() || make_room(chain);
}

bool Dispatcher::make_room(Chain& chain) {
  if (chain.spec().when_full == WhenFull::refuse) return false;
  for (ChainInstance* instance : {chain.longest_idle(), chain.longest_idle_connected()}) {
    for (uint32_t i = 0; instance != nullptr && i < kEvictLooks; i++, instance = instance->less_idle) {
      // A blocked client keeps its place: evicting it would let it in again at once.
      if (instance->in_flight > 0 || instance->blocked) continue;
      leave(*instance);
      chain.counters.evicted++;
      return true;
    }
  }
  return false;
}

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
    const uint32_t leaves = chain->spec().keep ? std::max(1u, most / kParkShare) : most;
    for (uint32_t i = 0; i < leaves; i++) {
      ChainInstance* instance = chain->longest_idle();
      if (instance == nullptr && chain->closed()) instance = chain->longest_idle_connected();
      if (instance == nullptr || instance->last_used_ns + chain->idle_timeout_ns() > now_ns) break;
      if (instance->in_flight > 0) {
        chain->touch(*instance, now_ns);
        break;
      }
      leave(*instance);
      chain->counters.expired++;
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

// It has been idle; what it holds is parked where its chain keeps clients that may still come back.
void Dispatcher::leave(ChainInstance& instance) {
  Chain& chain = *instance.chain;
  Tenant* tenant = instance.tenant;
  if (chain.spec().keep && !draining_ && !chain.closed() && !chain.retired()) parking_.park(instance, now_ns_);
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
