#include "timers.hpp"

#include <algorithm>

#include "fwp.hpp"
#include "limits.hpp"

namespace edgeos {

bool Timers::set(uint64_t token, uint64_t due_ns) {
  changed_ = true;
  for (Timer& t : timers_) {
    if (t.token != token) continue;
    t.due_ns = due_ns;
    return true;
  }
  if (timers_.size() == kTimersMax) return false;
  timers_.push_back({due_ns, token});
  return true;
}

void Timers::cancel(uint64_t token) {
  changed_ = true;
  std::erase_if(timers_, [&](const Timer& t) { return t.token == token; });
}

bool Timers::take_due(uint64_t now_ns, uint64_t& token) {
  const auto first = std::min_element(timers_.begin(), timers_.end(),
                                      [](const Timer& a, const Timer& b) { return a.due_ns < b.due_ns; });
  if (first == timers_.end() || first->due_ns > now_ns) return false;
  token = first->token;
  changed_ = true;
  timers_.erase(first);
  return true;
}

uint64_t Timers::next_ns() const {
  uint64_t next = UINT64_MAX;
  for (const Timer& t : timers_) next = std::min(next, t.due_ns);
  return next;
}

void Timers::clear() {
  timers_.clear();
  changed_ = false;
  if (queue_ != nullptr) queue_->remove(*this);
}

void TimerQueue::update(Fwp& fwp, uint64_t earliest_ns) {
  Timers& timers = fwp.timers;
  const uint64_t next = timers.next_ns();
  timers.changed_ = earliest_ns > next;
  if (next == UINT64_MAX) {
    if (timers.queue_ != nullptr) remove(timers);
    return;
  }
  timers.wake_ns_ = std::max(next, earliest_ns);
  if (timers.queue_ == nullptr) {
    timers.queue_ = this;
    timers.place_ = static_cast<uint32_t>(heap_.size());
    heap_.push_back(&fwp);
  }
  sift(timers.place_);
}

void TimerQueue::remove(Timers& timers) {
  const uint32_t at = timers.place_;
  timers.queue_ = nullptr;
  Fwp* last = heap_.back();
  heap_.pop_back();
  if (at == heap_.size()) return;
  place(at, last);
  sift(at);
}

Fwp* TimerQueue::pop_due(uint64_t now_ns) {
  if (next_ns() > now_ns) return nullptr;
  Fwp* fwp = heap_.front();
  remove(fwp->timers);
  return fwp;
}

uint64_t TimerQueue::next_ns() const { return heap_.empty() ? UINT64_MAX : heap_.front()->timers.wake_ns_; }

void TimerQueue::place(uint32_t at, Fwp* fwp) {
  heap_[at] = fwp;
  fwp->timers.place_ = at;
}

// A binary heap: moves one element up or down to where it belongs.
void TimerQueue::sift(uint32_t at) {
  Fwp* fwp = heap_[at];
  const uint64_t wake = fwp->timers.wake_ns_;
  while (at > 0 && wake < heap_[(at - 1) / 2]->timers.wake_ns_) {
    place(at, heap_[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->timers.wake_ns_ < heap_[child]->timers.wake_ns_) child++;
    if (heap_[child]->timers.wake_ns_ >= wake) break;
    place(at, heap_[child]);
    at = child;
  }
  place(at, fwp);
}

}  // namespace edgeos
