// What the control plane asks of a running worker beside its counters: each request is a command between two iterations.
#include <algorithm>

#include "worker.hpp"

namespace edgeos {
namespace {

void add_up(ChainCounters& sum, const ChainCounters& c) {
  for (uint64_t ChainCounters::*count : {&ChainCounters::received, &ChainCounters::emitted, &ChainCounters::emit_refused,
                                         &ChainCounters::sent, &ChainCounters::consumed, &ChainCounters::activations, &ChainCounters::evicted,
                                         &ChainCounters::expired})
    sum.*count += c.*count;
  for (size_t i = 0; i < sum.dropped.size(); i++) sum.dropped[i] += c.dropped[i];
  for (size_t i = 0; i < sum.kills.size(); i++) sum.kills[i] += c.kills[i];
  for (uint64_t ParkingCounters::*count : {&ParkingCounters::parked, &ParkingCounters::resumed, &ParkingCounters::too_large,
                                           &ParkingCounters::connected})
    sum.parking.*count += c.parking.*count;
  for (size_t i = 0; i < sum.parking.dropped.size(); i++) sum.parking.dropped[i] += c.parking.dropped[i];
}

}  // namespace

// What the first message of a template's FWP would otherwise find out.
void Worker::prove(const FwpTemplate& tmpl) {
  Fwp probe(tmpl);
  if (std::string why; !probe.instantiate(&why))
    throw std::runtime_error("template." + tmpl.name() + ": cannot make an instance: " + why);
}

uint32_t Worker::add_template(std::unique_ptr<FwpTemplate> tmpl, uint32_t ready_low, uint32_t ready_high,
                              uint32_t ready_max) {
  uint32_t number = 0;
  call([&] {
    sweep();
    if (prepared_) {
      uint64_t places = 1 + ready_high;
      for (const auto& chain : chains_) places += chain->places();
      for (const auto& pool : pools_) places += pool == nullptr ? 0 : pool->high();
      if (places > engine_.settings().fwps)
        throw std::runtime_error("room for " + std::to_string(places) + " FWPs, of " +
                                 std::to_string(engine_.settings().fwps) + " that this node was started with");
      prove(*tmpl);
    }
    const auto free = std::find(pools_.begin(), pools_.end(), nullptr);
    number = static_cast<uint32_t>(free - pools_.begin());
    auto pool = std::make_unique<Pool>(std::move(tmpl), ready_low, ready_high, ready_max);
    if (free == pools_.end()) {
      pools_.push_back(std::move(pool));
    } else {
      *free = std::move(pool);
    }
  });
  return number;
}

// Makes the places of chains and templates free that nothing uses any more; what the chains counted is kept.
void Worker::sweep() {
  decisions_.refresh();  // those that nobody uses may name what goes
  const auto is_gone = [](const auto& t) { return t->removed() && t->counters.clients == 0 && t->counters.parked == 0; };
  std::erase_if(tenants_, is_gone);
  for (auto& chain : chains_) {
    if (!chain->retired() || chain->instances() > 0 || chain->spec().name.empty()) continue;
    add_up(gone_, chain->counters);
    ChainSpec nothing;
    nothing.number = chain->spec().number;
    chain = std::make_unique<Chain>(std::move(nothing));
    chain->retire();
  }
  for (auto& pool : pools_) {
    const auto uses = [&](const auto& chain) {
      const auto& stages = chain->spec().stages;
      return std::any_of(stages.begin(), stages.end(), [&](const StageSpec& s) { return s.pool == pool.get(); });
    };
    if (pool != nullptr && pool->retired() && std::none_of(chains_.begin(), chains_.end(), uses)) pool.reset();
  }
}

// FWPs of this pool that its chains may have, at the most.
uint64_t Worker::places_of(const Pool& pool) const {
  uint64_t places = 0;
  for (const auto& chain : chains_) {
    const auto& stages = chain->spec().stages;
    const auto uses = std::count_if(stages.begin(), stages.end(), [&](const StageSpec& s) { return s.pool == &pool; });
    if (uses > 0) places += chain->places() / stages.size() * static_cast<uint64_t>(uses);
  }
  return places;
}

bool Worker::can_run(const Rule& rule) {
  if (!rule.tenant.empty() && tenant(rule.tenant) == nullptr) return false;
  const auto number = static_cast<size_t>(rule.action);
  return rule.action == Rule::kDropAction || (rule.action >= 0 && number < chains_.size() && !chains_[number]->retired());
}

void Worker::set_decisions(std::optional<DecisionSettings> settings) {
  call([&] {
    if (settings && !can_run(settings->otherwise)) throw std::runtime_error("the default names a chain or a tenant that is not there");
    if (settings) settings->tenant = tenant(settings->otherwise.tenant);
    decisions_.set(std::move(settings));
  });
}

void Worker::answer(uint64_t question, const std::optional<Rule>& rule) {
  call([&] {
    const uint64_t now_ns = clock_.now_ns();
    const bool usable = rule && can_run(*rule);
    const auto client = usable ? decisions_.answer(question, *rule, tenant(rule->tenant), now_ns) : decisions_.fail(question, now_ns);
    if (client && dispatcher_ != nullptr) dispatcher_->settle(*client);
  });
}

Tenant* Worker::tenant(const std::string& name) {
  const auto found = std::find_if(tenants_.begin(), tenants_.end(), [&](const auto& t) { return t->name() == name && !t->removed(); });
  return found == tenants_.end() ? nullptr : found->get();
}

void Worker::check(const Change& change) const {
  const auto is_retired = [&](const Chain& chain) {
    const auto& all = change.retired_chains;
    return chain.retired() || std::find(all.begin(), all.end(), chain.spec().number) != all.end();
  };
  uint64_t places = 1, vacant = kChainsMax - chains_.size();
  for (const auto& chain : chains_) {
    places += is_retired(*chain) ? chain->instances() * chain->spec().stages.size() : chain->places();
    vacant += chain->spec().name.empty();
  }
  for (uint32_t i = 0; i < pools_.size(); i++) {
    const auto& all = change.retired_templates;
    if (pools_[i] != nullptr && std::find(all.begin(), all.end(), i) == all.end()) places += pools_[i]->high();
  }
  if (change.chains.size() > vacant)
    throw std::runtime_error("a node has at most " + std::to_string(kChainsMax) + " chains, those included whose clients stay");
  for (const ChainSpec& spec : change.chains) {
    if (spec.stages.size() > kStagesMax) throw std::runtime_error("a chain has at most 16 stages");
    places += spec.stages.empty() ? 0 : spec.max_fwps;
  }
  if (places > engine_.settings().fwps)
    throw std::runtime_error("room for " + std::to_string(places) + " FWPs, of " + std::to_string(engine_.settings().fwps) +
                             " that this node was started with");
  for (const Rule& rule : change.rules) {
    const int64_t fresh = int64_t{Rule::kNewChain} - rule.action;
    const bool there = rule.action >= 0 && static_cast<size_t>(rule.action) < chains_.size() &&
                       !is_retired(*chains_[static_cast<size_t>(rule.action)]);
    if (rule.action != Rule::kDropAction && !there && (fresh < 0 || fresh >= static_cast<int64_t>(change.chains.size())))
      throw std::runtime_error("a rule names a chain that is not there");
  }
  for (const uint64_t id : change.removed_rules)
    if (!rules_.contains(id)) throw std::runtime_error("a rule is removed that is not there");
  for (const uint32_t number : change.retired_chains)
    if (number >= chains_.size() || chains_[number]->retired()) throw std::runtime_error("a chain is removed that is not there");
}

std::vector<uint32_t> Worker::apply(Change change) {
  std::vector<uint32_t> numbers;
  call([&] {
    sweep();
    check(change);
    for (const ChainSpec& spec : change.chains)
      for (const StageSpec& stage : spec.stages)
        if (spec.keep) stage.pool->make_origin();
    for (const uint64_t id : change.removed_rules) rules_.remove(id);
    for (TenantSpec& spec : change.tenants) {
      if (Tenant* known = tenant(spec.name)) {
        known->change(spec.quotas);
      } else {
        tenants_.push_back(std::make_unique<Tenant>(std::move(spec)));
      }
    }
    for (const std::string& name : change.removed_tenants)
      if (Tenant* known = tenant(name)) known->remove();
    for (ChainSpec& spec : change.chains) {
      const auto free = std::find_if(chains_.begin(), chains_.end(), [](const auto& c) { return c->spec().name.empty(); });
      spec.number = static_cast<uint16_t>(free - chains_.begin());
      numbers.push_back(spec.number);
      auto chain = std::make_unique<Chain>(std::move(spec));
      if (free == chains_.end()) {
        chains_.push_back(std::move(chain));
      } else {
        *free = std::move(chain);
      }
    }
    for (Rule& rule : change.rules) {
      if (rule.action <= Rule::kNewChain) rule.action = static_cast<int32_t>(numbers[size_t(Rule::kNewChain - rule.action)]);
      rules_.add(rule, tenant(rule.tenant));
    }
    for (const auto& [id, order] : change.rule_orders) rules_.set_order(id, order);
    rules_.sort();
    for (const uint32_t number : change.retired_chains) chains_[number]->retire();
    for (const uint32_t number : change.retired_templates)
      if (pools_.at(number) != nullptr) pools_[number]->retire();
    if (const Rule* otherwise = decisions_.otherwise(); otherwise != nullptr && !can_run(*otherwise)) decisions_.drop_otherwise();
    if (dispatcher_ != nullptr) dispatcher_->refresh();
  });
  return numbers;
}

uint32_t Worker::add_listener(Port* port) {
  uint32_t number = 0;
  call([&] {
    if (ports_.size() == kPortsMax)
      throw std::runtime_error("a node has at most " + std::to_string(kPortsMax) + " ports, those included that it once had");
    number = static_cast<uint32_t>(ports_.size());
    if (prepared_ && streams_ == nullptr) make_streams();
    if (prepared_) streams_->add_listener(*port->as_listener(), static_cast<uint16_t>(number));  // first: it may fail
    add_port(port);
    if (prepared_) dispatcher_->add_port();
  });
  return number;
}

void Worker::change_listeners(const std::vector<uint32_t>& opened, const std::vector<uint32_t>& closed) {
  call([&] {
    for (const uint32_t number : closed) {
      retired_ports_.at(number) = true;
      Listener& listener = *ports_.at(number)->as_listener();
      prepared_ ? streams_->remove_listener(listener) : listener.close();
    }
    for (const uint32_t number : opened)
      if (prepared_) streams_->open_listener(*ports_.at(number)->as_listener());
  });
}

void Worker::drain_executor() {
  while (executor_->outstanding() > 0)
    if (Run* done = executor_->completed()) end_burst(*done, span_clock_.now_ns());
}

bool Worker::access_one(ChainInstance& instance, uint8_t stage, const HandlerCall& call, HandlerAnswer& answer) {
  drain_executor();
  Fwp* fwp = instance.fwps[stage];
  if (fwp == nullptr) return false;
  answer = HandlerAnswer{instance.owner, HandlerStatus::no_cpu, Kill::none, {}};
  if (instance.tenant != nullptr && !instance.tenant->may_run(clock_.now_ns())) return true;
  HandlerCall own = call;
  Run& run = executor_->next_run();
  run.fwp = fwp;
  run.handler = &own;
  run.count = 0;  // no messages, so nothing is copied
  fwp->running = true;
  executor_->submit(run);
  while (executor_->completed() == nullptr) std::this_thread::yield();
  fwp->running = false;
  charge_tenant(run, run.cpu_ns);
  answer.cause = run.result;
  answer.status = run.result == Kill::none ? own.status : HandlerStatus::killed;
  answer.value = std::move(own.value);
  executor_->release(run);
  if (answer.cause != Kill::none) {
    ready_.remove(*fwp);
    instance.chain->kill(*fwp, answer.cause);
    if (streams_ != nullptr) streams_->killed(instance, stage);
  }
  return true;
}

std::vector<HandlerAnswer> Worker::access(uint32_t chain, uint8_t stage, const std::optional<Address>& client,
                                          const HandlerCall& request) {
  struct Wanted {
    uint32_t number;
    FlowKey owner;
  };
  std::vector<Wanted> wanted;
  call([&] {
    if (dispatcher_ == nullptr) return;
    if (stage >= chains_.at(chain)->spec().stages.size()) throw std::runtime_error("there is no such stage");
    dispatcher_->for_each_instance([&](const ChainInstance& i) {
      if (i.chain == chains_[chain].get() && (!client || i.owner.a == *client)) wanted.push_back({i.number, i.owner});
    });
  });
  std::vector<HandlerAnswer> answers;
  for (size_t next = 0; next < wanted.size();) {
    call([&] {
      if (executor_ == nullptr) return void(next = wanted.size());
      if (guest_thread_ != std::thread::id{} && guest_thread_ != std::this_thread::get_id())
        throw std::runtime_error("the node does not run, and another thread has stepped it");
      const uint64_t started_ns = span_clock_.now_ns();
      do {  // traffic waits no longer for handlers than for guests that are ready
        const Wanted& it = wanted[next++];
        ChainInstance& instance = dispatcher_->instance(it.number);
        HandlerAnswer answer;
        if (instance.chain != chains_[chain].get() || !(instance.owner == it.owner)) continue;  // it has left
        if (access_one(instance, stage, request, answer)) answers.push_back(std::move(answer));
      } while (next < wanted.size() && span_clock_.now_ns() - started_ns < kRunNs);
    });
  }
  return answers;
}

void Worker::close_chain(uint32_t chain) {
  call([&] { chains_.at(chain)->close(); });
}

void Worker::stop_listening() {
  call([&] {
    if (streams_ != nullptr) streams_->stop_listening();
  });
}

void Worker::drain() {
  stop_listening();
  call([&] {
    if (dispatcher_ != nullptr) dispatcher_->drain();
  });
}

}  // namespace edgeos
