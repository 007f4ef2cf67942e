#include "mma.hpp"

#include <algorithm>
#include <cstring>

namespace edgeos {
namespace {

// Exactly len bytes: nothing behind a message may reach the next memory. Small messages take two overlapping copies of
// a fixed size each, which beats a call.
void copy_bytes(uint8_t* to, const uint8_t* from, uint32_t len) {
  if (len == 64) {
    std::memcpy(to, from, 64);
  } else if (len > 128 || len < 16) {
    std::memcpy(to, from, len);
  } else if (len <= 32) {
    std::memcpy(to, from, 16);
    std::memcpy(to + len - 16, from + len - 16, 16);
  } else if (len < 64) {
    std::memcpy(to, from, 32);
    std::memcpy(to + len - 32, from + len - 32, 32);
  } else {
    std::memcpy(to, from, 64);
    std::memcpy(to + len - 64, from + len - 64, 64);
  }
}

}  // namespace

void Mma::copy_in(Fwp& fwp, const uint8_t* data, uint32_t len, const MessageMeta& meta) {
  const uint32_t slot = fwp.ring.index(fwp.ring.tail++);
  copy_bytes(fwp.slot(slot), data, len);
  fwp.messages()[slot] = GuestMessage{fwp.slot_address(slot), len, fwp.slot_size, meta.kind, meta.port, meta.direction,
                                      0, meta.flow, meta.time_ns};
  fwp.meta[slot] = meta;
  ready_.push(fwp);
}

void Mma::begin(Run& run, Fwp& fwp) {
  const uint32_t first = fwp.ring.index(fwp.ring.head);
  const uint32_t until_wrap = fwp.ring.mask + 1 - first;
  ChainInstance& instance = *fwp.owner;
  run.fwp = &fwp;
  run.first = first;
  run.count = std::min({fwp.ring.size(), kBurst, until_wrap});
  run.emit_room = std::min(kEmitsMax, instance.chain->emit_room(instance));
  instance.reserved += run.emit_room;
  run.stamp = instance.activation_started_ns != 0;
  fwp.running = true;
}

void Mma::finish(Run& run) {
  Fwp& fwp = *run.fwp;
  ChainInstance& instance = *fwp.owner;
  Chain& chain = *instance.chain;
  fwp.running = false;
  instance.reserved -= run.emit_room;
  if (run.stamp && instance.activation_started_ns != 0) {
    chain.activation_ns.add(run.started_ns - instance.activation_started_ns);
    instance.activation_started_ns = 0;
  }
  chain.counters.emit_refused += run.emit_refused;
  const Kill cause = run.result != Kill::none ? run.result : collect(run);
  if (cause != Kill::none) {
    chain.kill(fwp, cause);
    return;
  }
  StageCounters& stage = chain.stage_counters[fwp.stage];
  stage.handled += run.count;
  stage.bursts++;
  fwp.ring.restart_if_empty();
  if (fwp.ring.size() > 0) ready_.push(fwp);
}

Kill Mma::collect(Run& run) {
  Fwp& fwp = *run.fwp;
  auto emission = run.emissions.begin();
  for (uint32_t slot = run.first; slot < run.first + run.count; slot++) {
    for (; emission != run.emissions.end() && emission->index <= slot; ++emission) move_emission(fwp, run, *emission);
    const Kill cause = move(fwp, slot);
    if (cause != Kill::none) return cause;
    fwp.ring.head++;
  }
  return Kill::none;
}

// Everything read here was written by the guest: each word is read once, into a local, and checked before use.
Kill Mma::move(Fwp& fwp, uint32_t slot) {
  uint32_t answer[2];  // data, len
  int32_t verdict;
  std::memcpy(answer, &fwp.messages()[slot], sizeof answer);
  std::memcpy(&verdict, &fwp.verdicts()[slot], sizeof verdict);
  const uint32_t len = answer[1];
  const uint64_t end = uint64_t{answer[0]} + len;
  if (len > fwp.slot_size) return Kill::bad_length;
  if (end > fwp.memory_size && end > fwp.refresh_memory_size()) return Kill::bad_pointer;
  const uint32_t index = static_cast<uint32_t>(verdict) + 2;
  const MessageMeta& meta = fwp.meta[slot];
  if (index >= kRoutes) return Kill::bad_port;
  const Destination& to = fwp.owner->chain->spec().stages[fwp.stage].routes[meta.direction][index];
  if (to.kind == Destination::Kind::none) return Kill::bad_port;
  route(fwp, to, fwp.memory + answer[0], len, meta);
  return Kill::none;
}

void Mma::move_emission(Fwp& fwp, const Run& run, const Emission& e) {
  ChainInstance& instance = *fwp.owner;
  instance.in_flight++;
  instance.chain->counters.in_flight++;
  instance.chain->counters.emitted++;
  const MessageMeta& meta = fwp.meta[e.index];
  const uint32_t index = static_cast<uint32_t>(e.port) + 2;  // the host call has checked it
  route(fwp, instance.chain->spec().stages[fwp.stage].routes[meta.direction][index], run.bytes.data() + e.offset, e.len,
        meta);
}

void Mma::route(Fwp& from, const Destination& to, const uint8_t* data, uint32_t len, const MessageMeta& meta) {
  ChainInstance& instance = *from.owner;
  Chain& chain = *instance.chain;
  if (to.kind == Destination::Kind::stage) {
    if (meta.hops >= kHopsMax) return chain.drop(instance, Drop::hop_limit);
    Fwp* next = chain.fwp(instance, to.index);
    if (next == nullptr) return chain.drop(instance, Drop::no_fwp);
    if (len > next->slot_size) return chain.drop(instance, Drop::oversize);
    copy_in(*next, data, len,
            MessageMeta{meta.time_ns, meta.flow, meta.kind, to.direction, to.in_port, static_cast<uint8_t>(meta.hops + 1)});
  } else if (to.kind == Destination::Kind::port) {
    if (!ports_[to.index]->send(data, len, meta.time_ns)) return chain.drop(instance, Drop::tx_full);
    chain.finish_sent(instance);
  } else {
    chain.drop(instance, Drop::verdict);
  }
}

}  // namespace edgeos
