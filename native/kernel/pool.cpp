#include "pool.hpp"

namespace edgeos {

Pool::Pool(std::unique_ptr<FwpTemplate> tmpl, uint32_t low, uint32_t high)
    : tmpl_(std::move(tmpl)), low_(low), high_(high < low ? low : high) {}

Fwp* Pool::take() {
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
