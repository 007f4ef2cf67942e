// The FWPs of one template: ready ones between a low and a high water mark, dirty ones that wait to be recycled.
//
// Owner: the worker, which calls maintain() between bursts, off the path of messages. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fwp.hpp"

namespace edgeos {

struct PoolCounters {
  uint64_t created = 0;       // FWPs made new
  uint64_t recycled = 0;      // FWPs returned to the checkpoint
  uint64_t made_on_path = 0;  // none was ready when a client came, so one was made while it waited
  uint64_t exhausted = 0;     // none could be made
};

class Pool {
 public:
  Pool(std::unique_ptr<FwpTemplate> tmpl, uint32_t low, uint32_t high);

  // A ready FWP, the most recently used first; made or recycled on the spot when none is ready; nullptr when that fails.
  Fwp* take();
  // Takes back an FWP that take() gave; it must be dirty, or ready if it was never activated.
  void give_back(Fwp* fwp);
  // Recycles dirty FWPs, and once below the low water mark makes new ones up to the high one; at most `actions` of them.
  // True while there is more to do.
  bool maintain(uint32_t actions);

  // Keeps nothing ready any more; FWPs that are given back go back to the engine.
  void retire() {
    low_ = high_ = 0;
    retired_ = true;
  }
  bool retired() const { return retired_; }
  bool vacant() const { return all_.size() == empty_.size(); }
  uint32_t high() const { return high_; }

  const FwpTemplate& tmpl() const { return *tmpl_; }
  size_t ready() const { return ready_.size(); }
  size_t dirty() const { return dirty_.size(); }
  const PoolCounters& counters() const { return counters_; }

 private:
  bool recycle_one();
  bool create_one();

  std::unique_ptr<FwpTemplate> tmpl_;
  uint32_t low_;
  uint32_t high_;
  bool refilling_ = true;
  bool retired_ = false;
  std::vector<std::unique_ptr<Fwp>> all_;
  std::vector<Fwp*> ready_;
  std::vector<Fwp*> dirty_;
  std::vector<Fwp*> empty_;  // objects whose instance was given up
  PoolCounters counters_;
};

}  // namespace edgeos
