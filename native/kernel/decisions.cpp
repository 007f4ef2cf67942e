#include "decisions.hpp"

#include <algorithm>
#include <chrono>

#include "client_prefix.hpp"
#include "limits.hpp"

namespace edgeos {

void Decisions::set(std::optional<DecisionSettings> settings) {
  settings_ = std::move(settings);
  refresh();  // another callback may answer otherwise
}

void Decisions::drop_otherwise() {
  settings_->otherwise = Rule{};
  settings_->tenant = nullptr;
}

Decision* Decisions::find(const Question& about, uint64_t now_ns, Drop& why) {
  const auto found = clients_.find(about.client);
  if (found != clients_.end()) {
    Decision& decision = *found->second;
    why = Drop::undecided;
    if (!decision.made) return nullptr;
    decision.last_used_ns = now_ns;
    made_.remove(decision);
    made_.push_back(decision);
    return &decision;
  }
  const std::lock_guard lock(mutex_);
  // Questions that nobody takes do not pile up either.
  const Address prefix = client_prefix(about.client.a);
  const bool busy = crowded(prefix) || by_id_.size() >= settings_->waiting_max || questions_.size() >= settings_->waiting_max;
  if (busy || (clients_.size() >= settings_->clients_max && !make_room())) {
    counters_.turned_away++;
    why = Drop::unasked;
    return nullptr;
  }
  why = Drop::undecided;
  auto decision = std::make_unique<Decision>();
  decision->id = ++ids_;
  decision->client = about.client;
  decision->asked_ns = now_ns;
  by_id_.emplace(decision->id, decision.get());
  waiting_.push_back(*decision);
  waiting_of_[prefix]++;
  clients_.emplace(about.client, std::move(decision));
  counters_.asked++;
  questions_.push_back(about);
  questions_.back().id = ids_;
  arrived_.notify_one();
  return nullptr;
}

Decision* Decisions::waiting(uint64_t id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

// A host with IPv6 is as many clients as it likes.
bool Decisions::crowded(const Address& prefix) const {
  const auto found = waiting_of_.find(prefix);
  return found != waiting_of_.end() && found->second >= std::max(1u, settings_->waiting_max / kWaitingShares);
}

void Decisions::stop_waiting(Decision& decision) {
  by_id_.erase(decision.id);
  waiting_.remove(decision);
  const auto found = waiting_of_.find(client_prefix(decision.client.a));
  if (--found->second == 0) waiting_of_.erase(found);
}

FlowKey Decisions::decide(Decision& decision, const Rule& rule, Tenant* tenant, uint64_t now_ns) {
  stop_waiting(decision);
  made_.push_back(decision);
  decision.made = true;
  decision.last_used_ns = now_ns;
  decision.rule.rule = rule;
  decision.rule.tenant = tenant;
  changes_++;
  return decision.client;
}

std::optional<FlowKey> Decisions::answer(uint64_t id, const Rule& rule, Tenant* tenant, uint64_t now_ns) {
  Decision* decision = waiting(id);
  (decision != nullptr ? counters_.answered : counters_.late)++;
  return decision == nullptr ? std::nullopt : std::optional(decide(*decision, rule, tenant, now_ns));
}

std::optional<FlowKey> Decisions::fail(uint64_t id, uint64_t now_ns) {
  counters_.failed++;
  Decision* decision = waiting(id);
  if (decision == nullptr) return std::nullopt;
  counters_.defaulted++;
  return decide(*decision, settings_->otherwise, settings_->tenant, now_ns);
}

std::vector<FlowKey> Decisions::expire(uint64_t now_ns) {
  std::vector<FlowKey> decided;
  while (settings_ && !waiting_.empty() && waiting_.front()->asked_ns + settings_->deadline_ns <= now_ns) {
    counters_.defaulted++;
    decided.push_back(decide(*waiting_.front(), settings_->otherwise, settings_->tenant, now_ns));
  }
  while (settings_ && !made_.empty() && made_.front()->last_used_ns + settings_->keep_ns <= now_ns) {
    Decision& decision = *made_.front();
    if (decision.rule.clients == 0) {
      forget(decision);
    } else {  // it has FWPs, which end by themselves
      decision.last_used_ns = now_ns;
      made_.remove(decision);
      made_.push_back(decision);
    }
  }
  return decided;
}

uint64_t Decisions::next_expiry_ns() const {
  uint64_t next = UINT64_MAX;
  if (!settings_) return next;
  if (!waiting_.empty()) next = waiting_.front()->asked_ns + settings_->deadline_ns;
  if (!made_.empty()) next = std::min(next, made_.front()->last_used_ns + settings_->keep_ns);
  return next;
}

void Decisions::refresh() {
  for (Decision *decision = made_.front(), *next; decision != nullptr; decision = next) {
    next = DecisionList::next(*decision);
    if (decision->rule.clients == 0) forget(*decision);
  }
}

void Decisions::forget(Decision& decision) {
  made_.remove(decision);
  clients_.erase(FlowKey(decision.client));
}

// The longest unused decision about a client without FWPs gives way.
bool Decisions::make_room() {
  constexpr uint32_t kLooks = 64;
  Decision* decision = made_.front();
  for (uint32_t i = 0; decision != nullptr && i < kLooks; i++, decision = DecisionList::next(*decision)) {
    if (decision->rule.clients > 0) continue;
    forget(*decision);
    return true;
  }
  return false;
}

std::vector<Question> Decisions::take_questions(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  arrived_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return stopped_ || !questions_.empty(); });
  std::vector<Question> taken(questions_.begin(), questions_.end());
  questions_.clear();
  return taken;
}

void Decisions::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  arrived_.notify_all();
}

DecisionCounters Decisions::counters() const {
  DecisionCounters counters = counters_;
  counters.waiting = by_id_.size();
  counters.kept = clients_.size() - by_id_.size();
  return counters;
}

}  // namespace edgeos
