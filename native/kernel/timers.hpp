// The timers of one FWP, and a worker's queue of the FWPs that have any, by when the first of each runs out.
//
// Owner: the FWP; the worker. Threading: the mover's thread; but while an FWP runs, which timers it has is for the thread that
// runs it alone, and its place in the queue is brought up to date when it has run. Bounded: kTimersMax timers for each FWP,
// one place in the queue for each FWP.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edgeos {

class Fwp;
class TimerQueue;

class Timers {
 public:
  struct Timer {
    uint64_t due_ns;
    uint64_t token;
  };
  // Sets or moves the timer of this token. False when there are too many.
  bool set(uint64_t token, uint64_t due_ns);
  void cancel(uint64_t token);
  // Takes out the timer that runs out first, if that is by now.
  bool take_due(uint64_t now_ns, uint64_t& token);
  uint64_t next_ns() const;  // when the first runs out; UINT64_MAX when there is none
  std::span<const Timer> all() const { return timers_; }
  void clear();              // leaves the queue too
  // Whether its place in the queue may not be right any more. Not while the FWP runs.
  bool misplaced() const { return changed_ || (queue_ == nullptr && !timers_.empty()); }

 private:
  friend class TimerQueue;
  std::vector<Timer> timers_;
  bool changed_ = false;         // since it was last given a place, or it waits there for room
  TimerQueue* queue_ = nullptr;  // that it waits in
  uint32_t place_ = 0;
  uint64_t wake_ns_ = 0;
};

class TimerQueue {
 public:
  // Enters, moves or removes an FWP by its first timer; not before `earliest_ns`, for one that has to wait for room.
  void update(Fwp& fwp, uint64_t earliest_ns = 0);
  void remove(Timers& timers);
  // An FWP whose time has come, taken out; nullptr when there is none.
  Fwp* pop_due(uint64_t now_ns);
  uint64_t next_ns() const;

 private:
  void place(uint32_t at, Fwp* fwp);
  void sift(uint32_t at);
  std::vector<Fwp*> heap_;
};

}  // namespace edgeos
