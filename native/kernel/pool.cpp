#include "pool.hpp"

#include <algorithm>

namespace edgeos {

namespace {

constexpr uint64_t kExpectedUnit = 1024;  // parts of one arrival
constexpr uint64_t kForget = 256;         // one part of so many is forgotten with each window
constexpr uint64_t kWindowsMax = 8192;    // after which nothing is left

}  // namespace

Pool::Pool(std::unique_ptr<FwpTemplate> tmpl, uint32_t low, uint32_t high, uint32_t most)
    : tmpl_(std::move(tmpl)),
      low_min_(low),
      high_min_(std::max(low, high)),
      most_(std::max(most, high_min_)),
      low_(low_min_),
      high_(high_min_) {}

void Pool::follow(uint64_t now_ns, uint64_t places) {
  expected_ = std::max(expected_, arrivals_ * kExpectedUnit);
  arrivals_ = 0;
  const uint64_t windows = now_ns < window_ns_ ? 1 : std::min((now_ns - window_ns_) / kWindowNs, kWindowsMax);
  for (uint64_t i = 0; i < windows && expected_ > 0; i++) expected_ -= 1 + expected_ / kForget;
  window_ns_ = now_ns;
  if (most_ == high_min_) return;  // it is to stay as it is
  const uint64_t live = all_.size() - empty_.size() - ready_.size();
  const uint64_t room = places + high_min_ > live ? places + high_min_ - live : 0;
  const uint64_t wanted = std::min({2 * expected_ / kExpectedUnit, uint64_t{most_}, room});
  high_ = std::max(high_min_, static_cast<uint32_t>(wanted));
  low_ = std::max(low_min_, static_cast<uint32_t>(wanted - wanted / 4));
}

Fwp* Pool::take() {
  arrivals_++;
  if (ready_.empty()) {
    if (!(dirty_.empty() ? create_one() : recycle_one())) {
      counters_.exhausted++;
      return nullptr;
    }
    counters_.made_on_path++;
  }
  Fwp* fwp = ready_.back();
  ready_.pop_back();
  return fwp;
}

void Pool::give_back(Fwp* fwp) { (fwp->state() == FwpState::ready ? ready_ : dirty_).push_back(fwp); }

bool Pool::maintain(uint32_t actions) {
  for (; actions > 0 && !dirty_.empty(); actions--) {
    if (ready_.size() < high_) {
      recycle_one();
    } else {  // more left than the high mark wants ready: their memory goes back to the engine
      Fwp* fwp = dirty_.back();
      dirty_.pop_back();
      fwp->destroy();
      empty_.push_back(fwp);
    }
  }
  for (; actions > 0 && ready_.size() > high_; actions--) {
    Fwp* fwp = ready_.back();
    ready_.pop_back();
    fwp->destroy();
    empty_.push_back(fwp);
  }
  if (ready_.size() < low_) refilling_ = true;
  for (; actions > 0 && refilling_; actions--) refilling_ = ready_.size() < high_ && create_one();
  return !dirty_.empty() || ready_.size() > high_ || refilling_;
}

bool Pool::recycle_one() {
  Fwp* fwp = dirty_.back();
  dirty_.pop_back();
  if (!fwp->instantiate()) {
    empty_.push_back(fwp);
    return false;
  }
  counters_.recycled++;
  ready_.push_back(fwp);
  return true;
}

bool Pool::create_one() {
  if (empty_.empty()) {
    all_.push_back(std::make_unique<Fwp>(*tmpl_));
    empty_.push_back(all_.back().get());
  }
  Fwp* fwp = empty_.back();
  if (!fwp->instantiate()) return false;
  empty_.pop_back();
  counters_.created++;
  ready_.push_back(fwp);
  return true;
}

}  // namespace edgeos
