// The FWPs of one template: ready ones between a low and a high water mark, dirty ones that wait to be recycled.
//
// The marks follow the arrivals: as many FWPs are kept ready as came in the busiest hundredth of a second of late, and as
// many again; what was busy once is forgotten slowly, by a half in about two seconds. The settings bound them: never less than
// the low and high marks given, never more than `most`, and no FWP that other templates' chains may claim.
//
// Owner: the worker, which calls maintain() between bursts, off the path of messages. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fwp.hpp"
#include "origin.hpp"

namespace edgeos {

struct PoolCounters {
  uint64_t created = 0;       // FWPs made new
  uint64_t recycled = 0;      // FWPs returned to the checkpoint
  uint64_t made_on_path = 0;  // none was ready when a client came, so one was made while it waited
  uint64_t exhausted = 0;     // none could be made
};

class Pool {
 public:
  Pool(std::unique_ptr<FwpTemplate> tmpl, uint32_t low, uint32_t high, uint32_t most = 0);

  // A ready FWP, the most recently used first; made or recycled on the spot when none is ready; nullptr when that fails.
  Fwp* take();
  // Takes back an FWP that take() gave; it must be dirty, or ready if it was never activated.
  void give_back(Fwp* fwp);
  // Recycles dirty FWPs, and once below the low water mark makes new ones up to the high one; at most `actions` of them.
  // True while there is more to do.
  bool maintain(uint32_t actions);
  // Adapts the marks; `places` is how many FWPs there may be for the chains that use this pool, beside the high mark given.
  void follow(uint64_t now_ns, uint64_t places);
  bool follows_at(uint64_t now_ns) const { return now_ns - window_ns_ >= kWindowNs; }  // also when a test turned time back
  // When follow() has something to give up though nobody comes; UINT64_MAX if never.
  uint64_t next_ns() const { return high_ > high_min_ ? window_ns_ + 1'000'000'000 : UINT64_MAX; }

  // Keeps nothing ready any more; FWPs that are given back go back to the engine.
  void retire() {
    low_ = high_ = low_min_ = high_min_ = most_ = 0;
    retired_ = true;
  }
  bool retired() const { return retired_; }
  bool vacant() const { return all_.size() == empty_.size(); }
  uint32_t high() const { return high_min_; }  // as given, which room is kept for
  uint32_t wanted() const { return high_; }    // as it is now

  const FwpTemplate& tmpl() const { return *tmpl_; }
  // How its FWPs begin; to be made before the first client comes whose FWP is to be parked.
  void make_origin() {
    if (origin_ == nullptr) origin_ = std::make_unique<Origin>(*tmpl_);
  }
  const Origin& origin() const { return *origin_; }
  size_t ready() const { return ready_.size(); }
  size_t dirty() const { return dirty_.size(); }
  const PoolCounters& counters() const { return counters_; }

 private:
  static constexpr uint64_t kWindowNs = 10'000'000;
  bool recycle_one();
  bool create_one();

  std::unique_ptr<FwpTemplate> tmpl_;
  std::unique_ptr<const Origin> origin_;
  uint32_t low_min_;
  uint32_t high_min_;
  uint32_t most_;
  uint32_t low_;
  uint32_t high_;
  uint64_t window_ns_ = 0;  // when it began
  uint32_t arrivals_ = 0;  // in this window
  uint64_t expected_ = 0;  // arrivals in a window, in units of kExpectedUnit
  bool refilling_ = true;
  bool retired_ = false;
  std::vector<std::unique_ptr<Fwp>> all_;
  std::vector<Fwp*> ready_;
  std::vector<Fwp*> dirty_;
  std::vector<Fwp*> empty_;  // objects whose instance was given up
  PoolCounters counters_;
};

}  // namespace edgeos
