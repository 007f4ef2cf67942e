// Whose turn it is: FWPs that have messages, in the order in which they became ready, so that no client waits for another's
// work to end. A burst that took longer than a turn is worth puts its client into debt. Each time a client in debt comes up
// it pays the worth of a turn and goes to the back instead of running; with nobody beside it that costs it nothing. Its next
// bursts hold as few messages as fit into one turn.
//
// Guests that are quick are only ever compared with the worth of a turn, by a clock that is read anyway. One that seems slow
// is watched: the CPU time of its next bursts is measured, since the machine may have been slow instead.
//
// A burst is not interrupted, so a light client waits for one message of a heavy one at most, and the rest of a turn.
//
// Source: deficit round robin, Shreedhar and Varghese 1995, paid afterwards. Owner: the worker; not thread-safe.
#pragma once

#include <algorithm>

#include "chain.hpp"
#include "executor.hpp"
#include "fwp.hpp"

namespace edgeos {

// Each FWP is in it at most once.
class ReadyList {
 public:
  void push(Fwp& fwp) {
    if (fwp.queued || fwp.running) return;
    fwp.queued = true;
    fwp.next_ready = nullptr;
    (tail_ != nullptr ? tail_->next_ready : head_) = &fwp;
    tail_ = &fwp;
  }
  // The one whose turn it is.
  Fwp* next() {
    for (;;) {
      Fwp* fwp = pop();
      if (fwp == nullptr || fwp->owner->debt_ns == 0) return fwp;
      fwp->owner->debt_ns -= std::min(fwp->owner->debt_ns, kTurnNs);
      push(*fwp);
    }
  }
  Fwp* pop() {
    Fwp* fwp = head_;
    if (fwp == nullptr) return nullptr;
    head_ = fwp->next_ready;
    if (head_ == nullptr) {
      tail_ = nullptr;
    } else {
      head_->prefetch_call();
    }
    fwp->queued = false;
    return fwp;
  }
  bool empty() const { return head_ == nullptr; }
  // Takes one out of turn; walks the list, so for rare events only.
  void remove(Fwp& fwp) {
    if (!fwp.queued) return;
    Fwp* before = nullptr;
    for (Fwp* at = head_; at != &fwp; at = at->next_ready) before = at;
    (before != nullptr ? before->next_ready : head_) = fwp.next_ready;
    if (tail_ == &fwp) tail_ = before;
    fwp.queued = false;
  }

 private:
  Fwp* head_ = nullptr;
  Fwp* tail_ = nullptr;
};

// A client has used so much: what is beyond the worth of a turn is its debt.
inline void owe(ChainInstance& instance, uint64_t used_ns) {
  if (used_ns > kTurnNs) instance.debt_ns = std::min(instance.debt_ns + used_ns - kTurnNs, kDebtMaxNs);
}

// Charges a client for a burst, before its results are moved on. Returns the CPU time that it used, as far as that is known:
// of the first burst that is slow only the worth of a turn.
inline uint64_t charge(const Run& run, uint64_t elapsed_ns) {
  Fwp& fwp = *run.fwp;
  if (!fwp.watched) [[likely]] {
    fwp.watched = elapsed_ns > kTurnNs;
    return std::min(elapsed_ns, kTurnNs);
  }
  if (run.cpu_ns <= kTurnNs) {
    fwp.watched = fwp.turn < kBurst;
    fwp.turn = std::min(kBurst, fwp.turn * 2);
  } else {
    owe(*fwp.owner, run.cpu_ns);
    fwp.turn = static_cast<uint32_t>(std::max<uint64_t>(1, std::max(run.count, 1u) * kTurnNs / run.cpu_ns));
  }
  return run.cpu_ns;
}

}  // namespace edgeos
