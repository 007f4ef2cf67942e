// A limit of so many units a second, with some in hand to begin with: a leaky bucket kept as the time until which what was
// taken is paid for. Exact for any rate: what a division leaves over is carried on.
//
// Source: the generic cell rate algorithm, ITU-T I.371. Owner: whoever it limits; not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

namespace edgeos {

class Rate {
 public:
  Rate() = default;
  // `in_hand_ns`: as much as that time is worth may be taken at once. 0 a second is no limit.
  explicit Rate(uint64_t per_second, uint64_t in_hand_ns = 1'000'000'000) : per_second_(per_second), in_hand_ns_(in_hand_ns) {}

  bool limited() const { return per_second_ != 0; }
  // True while anything is left; the last one may then take more than that, and is paid for before the next.
  bool allows(uint64_t now_ns) const { return paid_until_ns_ < now_ns + in_hand_ns_ || !limited(); }
  void take(uint64_t units, uint64_t now_ns) {
    if (!limited()) return;
    __extension__ using Wide = unsigned __int128;
    const Wide cost = Wide{units} * 1'000'000'000 + left_over_;
    left_over_ = static_cast<uint64_t>(cost % per_second_);
    paid_until_ns_ = std::max(paid_until_ns_, now_ns) + static_cast<uint64_t>(cost / per_second_);
  }
  bool try_take(uint64_t units, uint64_t now_ns) {
    if (!allows(now_ns)) return false;
    take(units, now_ns);
    return true;
  }
  // When it allows something again.
  uint64_t allows_at_ns() const {
    return !limited() || paid_until_ns_ < in_hand_ns_ ? 0 : paid_until_ns_ - in_hand_ns_ + 1;
  }
  // Another rate; what was taken stays taken.
  void change(uint64_t per_second) {
    if (per_second != per_second_) left_over_ = 0;
    per_second_ = per_second;
  }

 private:
  uint64_t per_second_ = 0;
  uint64_t in_hand_ns_ = 1'000'000'000;
  uint64_t paid_until_ns_ = 0;
  uint64_t left_over_ = 0;
};

}  // namespace edgeos
