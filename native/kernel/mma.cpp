#include "mma.hpp"

#include <algorithm>

#include "copy.hpp"
#include "streams.hpp"

namespace edgeos {
namespace {

// One load of a word that a guest may write.
template <class T>
T read_once(const T& word) {
  return *const_cast<const volatile T*>(&word);
}

EDGEOS_INLINE void fill_slot(const Slots& s, uint32_t cursor, const uint8_t* data, uint32_t len, MessageMeta meta) {
  const uint32_t slot = cursor & s.mask;
  const uint32_t offset = slot * s.stride;
  copy_bytes(s.data + offset, data, len);
  s.messages[slot].set(s.address + offset, len, s.size, meta);
  // Word by word: a copy of the whole would wait for the two stores that made it.
  s.meta[slot].word = meta.word;
  s.meta[slot].time_ns = meta.time_ns;
}

// Messages of one kind and direction go the same way by the same verdict.
EDGEOS_INLINE uint64_t way_of(uint64_t word) { return word >> 32 & 0xffff; }

// What a guest answered for one message. Every word is read once, and checked before use.
struct Answer {
  const uint8_t* data;
  uint32_t len;
  Kill fault;
};

// The memory that a guest's answers point into, in registers like Slots.
struct Memory {
  Fwp& fwp;
  const uint8_t* bytes;
  uint64_t size;
};

EDGEOS_INLINE Answer read_answer(Memory& memory, const Slots& s, uint32_t slot) {
  const uint32_t data = read_once(s.messages[slot].data);
  const uint32_t len = read_once(s.messages[slot].len);
  const uint64_t end = uint64_t{data} + len;
  if (len > s.size) return {nullptr, 0, Kill::bad_length};
  if (end > memory.size) {  // it may have grown since
    memory.size = memory.fwp.refresh_memory_size();
    if (end > memory.size) return {nullptr, 0, Kill::bad_pointer};
  }
  return {memory.bytes + data, len, Kill::none};
}

// Puts messages of one kind into the ring of one stage, with what they have in common made ready.
class Onward {
 public:
  Onward(const MessageMeta& like, const Destination& to, uint32_t room)
      : step_{uint64_t{1} << 56 | uint64_t{to.direction} << 40 | uint64_t{to.in_port} << 48, 0},
        room_and_kind_(GuestMessage::room_and_kind(room, like.onward(to.direction, to.in_port))) {}

  // As fill_slot of meta.onward().
  EDGEOS_INLINE void fill(const Slots& s, uint32_t cursor, const Answer& answer, const MessageMeta& meta) const {
    const uint32_t slot = cursor & s.mask;
    const uint32_t offset = slot * s.stride;
    const WordPair words = *reinterpret_cast<const WordPair*>(&meta);
    copy_bytes(s.data + offset, answer.data, answer.len);
    s.messages[slot].set(s.address + offset, answer.len, room_and_kind_, words & kShown);
    *reinterpret_cast<WordPair*>(&s.meta[slot]) = (words & kKept) + step_;
  }

 private:
  static constexpr WordPair kShown = {0xffffffff, ~uint64_t{0}};           // flow and time
  static constexpr WordPair kKept = {0xff0000ff'ffffffff, ~uint64_t{0}};  // all but direction and in port

  WordPair step_;
  uint64_t room_and_kind_;
};

}  // namespace

// Messages of a burst that go the same way: they have one verdict, one kind and one direction.
struct Mma::Train {
  const int32_t* verdicts;
  const MessageMeta* meta;
  int32_t verdict;
  uint64_t way;
  uint32_t end;  // of the burst
  EDGEOS_INLINE bool has(uint32_t slot) const {
    return slot < end && read_once(verdicts[slot]) == verdict && way_of(meta[slot].word) == way;
  }
  uint32_t stop(uint32_t slot) const {
    do slot++;
    while (has(slot));
    return slot;
  }
};

EDGEOS_CLONES uint32_t Mma::copy_in(Fwp& fwp, const Packet* packets, const uint32_t* flows, uint32_t count,
                                    const Entry& entry) {
  const Slots target = fwp.slots();
  const Entry in = entry;
  const uint32_t before = fwp.ring.tail;
  uint32_t tail = before;
  for (uint32_t i = 0; i < count; i++) {
    if (packets[i].len > target.size) continue;
    fill_slot(target, tail++, packets[i].data, packets[i].len,
              MessageMeta::make(packets[i].time_ns, flows[i], MessageKind::packet, in.direction, in.in_port));
  }
  fwp.ring.tail = tail;
  if (tail != before) ready_.push(fwp);
  return count - (tail - before);
}

// Their messages count as emitted by the guest, which asked for them, but take the room of received ones: what is kept for
// emissions, the guest may need to answer them.
bool Mma::deliver_timers(Fwp& fwp, uint64_t now_ns) {
  ChainInstance& instance = *fwp.owner;
  for (;;) {
    if (fwp.timers.next_ns() > now_ns) return true;
    if (instance.chain->entry_room(instance) == 0) return false;
    uint64_t token = 0;
    fwp.timers.take_due(now_ns, token);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&token);
    fill_slot(fwp.slots(), fwp.ring.tail++, bytes, sizeof token,
              MessageMeta::make(wall_clock_ns(), 0, MessageKind::timer, kForward, 0));
    instance.in_flight++;
    instance.chain->counters.emitted++;
    ready_.push(fwp);
  }
}

void Mma::begin(Run& run, Fwp& fwp) {
  const uint32_t first = fwp.ring.index(fwp.ring.head);
  const uint32_t until_wrap = fwp.ring.mask + 1 - first;
  ChainInstance& instance = *fwp.owner;
  run.fwp = &fwp;
  run.first = first;
  run.count = std::min({fwp.ring.size(), fwp.turn, until_wrap});
  const uint32_t room = instance.chain->emit_room(instance);
  run.emit_room = std::min(kEmitsMax, shares_room_ ? room - room / 2 : room);
  instance.reserved += run.emit_room;
  run.stamp = instance.activation_started_ns != 0;
  run.streams = streams_;
  const bool connects = streams_ != nullptr && !fwp.tmpl().grants().connects.empty();
  run.connect_room = connects ? instance.streams.upstream_room() : 0;
  run.connects = 0;
  fwp.running = true;
}

bool Mma::finish(Run& run) {
  Fwp& fwp = *run.fwp;
  ChainInstance& instance = *fwp.owner;
  Chain& chain = *instance.chain;
  instance.reserved -= run.emit_room;
  if (run.stamp && instance.activation_started_ns != 0) {
    chain.activation_ns.add(run.started_ns - instance.activation_started_ns);
    instance.activation_started_ns = 0;
  }
  chain.counters.emit_refused += run.emit_refused;
  const Kill cause = run.result != Kill::none ? run.result : collect(run);
  fwp.running = false;  // only now: until it is known whether it lives on, nothing may put it on the ready list
  if (cause != Kill::none) {
    chain.kill(fwp, cause);
    if (streams_ != nullptr) streams_->killed(instance, fwp.stage);
    return false;
  }
  StageCounters& stage = chain.stage_counters[fwp.stage];
  stage.handled += run.count;
  stage.bursts++;
  fwp.ring.restart_if_empty();
  if (fwp.ring.size() > 0) ready_.push(fwp);
  if (fwp.tmpl().grants().timer && fwp.timers.misplaced()) timers_.update(fwp);
  if (streams_ == nullptr) return true;
  for (const uint32_t flow : run.cut_short) streams_->wants_room(instance, fwp.stage, flow);
  streams_->room(instance);
  return true;
}

Kill Mma::collect(Run& run) {
  Fwp& fwp = *run.fwp;
  const Source from{fwp, *fwp.owner, *fwp.owner->chain, fwp.owner->chain->spec().stages[fwp.stage]};
  auto emission = run.emissions.begin();
  const uint32_t end = run.first + run.count;
  for (uint32_t slot = run.first; slot < end;) {
    for (; emission != run.emissions.end() && emission->index <= slot; ++emission) move_emission(from, run, *emission);
    const uint32_t until = emission == run.emissions.end() ? end : std::min(end, emission->index);
    const Kill cause = move_alike(from, slot, until);
    if (cause != Kill::none) return cause;
  }
  return Kill::none;
}

// Moves messages from `slot` on as long as they go the same way; they leave the ring one by one as they are dealt with.
Kill Mma::move_alike(const Source& from, uint32_t& slot, uint32_t end) {
  const MessageMeta first = from.fwp.meta[slot];
  const Train train{from.fwp.verdicts(), from.fwp.meta.get(), read_once(from.fwp.verdicts()[slot]), way_of(first.word), end};
  const uint32_t index = static_cast<uint32_t>(train.verdict) + 2;
  if (train.verdict == kVerdictDone) return consume(from, slot, train.stop(slot));
  if (index >= kRoutes) return Kill::bad_port;
  const Destination to = from.stage.routes[first.direction()][index];
  // A timer is nobody else's business.
  if (first.kind() == MessageKind::timer && to.kind != Destination::Kind::drop) return Kill::bad_port;
  switch (to.kind) {
    case Destination::Kind::stage: return move_to_stage(from, to, slot, train);
    case Destination::Kind::port: return move_to_port(from, to, slot, train);
    case Destination::Kind::upstream: return move_to_connections(from, to, slot, train.stop(slot));
    case Destination::Kind::drop: return drop_by_verdict(from, slot, train.stop(slot));
    case Destination::Kind::none: break;
  }
  return Kill::bad_port;
}

EDGEOS_CLONES Kill Mma::move_to_stage(const Source& from, const Destination& to, uint32_t& slot, const Train& same) {
  Fwp* next = from.chain.fwp(from.instance, to.index);
  if (next == nullptr || next->slot_size < from.fwp.slot_size) return move_with_care(from, to, slot, same.stop(slot));
  const Train train = same;
  const Slots source = from.fwp.slots();
  const Slots target = next->slots();
  Memory memory{from.fwp, from.fwp.memory, from.fwp.memory_size};
  const Onward onward(from.fwp.meta[slot], to, target.size);
  uint32_t tail = next->ring.tail, hopped_enough = 0, at = slot;
  Kill cause = Kill::none;
  do {
    const Answer answer = read_answer(memory, source, at);
    cause = answer.fault;
    if (cause != Kill::none) break;
    if (source.meta[at].hops() >= kHopsMax) {
      hopped_enough++;
    } else {
      onward.fill(target, tail++, answer, source.meta[at]);
    }
  } while (train.has(++at));
  from.fwp.ring.head += at - slot;
  slot = at;
  next->ring.tail = tail;
  from.chain.drop(from.instance, Drop::hop_limit, hopped_enough);
  if (next->ring.size() > 0) ready_.push(*next);
  return cause;
}

// The next stage cannot be had, or may find a message too large.
Kill Mma::move_with_care(const Source& from, const Destination& to, uint32_t& slot, uint32_t stop) {
  const Slots source = from.fwp.slots();
  Memory memory{from.fwp, from.fwp.memory, from.fwp.memory_size};
  for (; slot < stop; slot++) {
    const Answer answer = read_answer(memory, source, slot);
    if (answer.fault != Kill::none) return answer.fault;
    route(from, to, answer.data, answer.len, from.fwp.meta[slot]);
    from.fwp.ring.head++;
  }
  return Kill::none;
}

Kill Mma::move_to_port(const Source& from, const Destination& to, uint32_t& slot, const Train& same) {
  Port& port = *ports_[to.index];
  if (port.as_listener() != nullptr) return move_to_connections(from, to, slot, same.stop(slot));
  const Train train = same;
  const Slots source = from.fwp.slots();
  const bool packets = from.fwp.meta[slot].kind() == MessageKind::packet;
  Memory memory{from.fwp, from.fwp.memory, from.fwp.memory_size};
  Packet burst[kBurst];
  uint32_t count = 0;
  Kill cause = Kill::none;
  do {
    const Answer answer = read_answer(memory, source, slot);
    cause = answer.fault;
    if (cause != Kill::none) break;
    burst[count++] = {answer.data, answer.len, source.meta[slot].time_ns};
  } while (train.has(++slot));
  const uint32_t sent = packets ? port.send_burst(burst, count) : 0;
  from.fwp.ring.head += count;
  from.chain.finish_sent(from.instance, sent);
  from.chain.drop(from.instance, Drop::tx_full, count - sent);
  return cause;
}

// Bytes in a row for one connection leave in one write.
Kill Mma::move_to_connections(const Source& from, const Destination& to, uint32_t& slot, uint32_t stop) {
  const Slots source = from.fwp.slots();
  Memory memory{from.fwp, from.fwp.memory, from.fwp.memory_size};
  iovec pieces[kBurst];
  Kill cause = Kill::none;
  while (slot < stop && cause == Kill::none) {
    const uint32_t flow = source.meta[slot].flow();
    const MessageKind kind = source.meta[slot].kind();
    uint32_t count = 0;
    for (uint32_t at = slot; at < stop && source.meta[at].flow() == flow && source.meta[at].kind() == kind; at++) {
      const Answer answer = read_answer(memory, source, at);
      cause = answer.fault;
      if (cause != Kill::none) break;
      pieces[count++] = {const_cast<uint8_t*>(answer.data), answer.len};
    }
    if (count > 0) deliver(from, to, flow, kind, pieces, count);
    from.fwp.ring.head += count;
    slot += count;
  }
  return cause;
}

void Mma::deliver(const Source& from, const Destination& to, uint32_t flow, MessageKind kind, const iovec* pieces, uint32_t count) {
  switch (streams_->deliver(from.instance, to, from.fwp.stage, flow, kind, pieces, count)) {
    case Delivery::sent: return from.chain.finish_sent(from.instance, count);
    case Delivery::consumed: return from.chain.finish_consumed(from.instance, count);
    case Delivery::no_connection: return from.chain.drop(from.instance, Drop::no_connection, count);
    case Delivery::refused: return from.chain.drop(from.instance, Drop::tx_full, count);
  }
}

Kill Mma::consume(const Source& from, uint32_t& slot, uint32_t stop) {
  from.chain.finish_consumed(from.instance, stop - slot);
  from.fwp.ring.head += stop - slot;
  slot = stop;
  return Kill::none;
}

Kill Mma::drop_by_verdict(const Source& from, uint32_t& slot, uint32_t stop) {
  from.chain.drop(from.instance, Drop::verdict, stop - slot);
  from.fwp.ring.head += stop - slot;
  slot = stop;
  return Kill::none;
}

// What a guest sent by edgeos.stream; the host call has checked flow and port.
void Mma::move_stream_emission(const Source& from, const Run& run, const Emission& e) {
  if (e.kind == MessageKind::open) {
    return streams_->open_upstream(from.instance, from.fwp.stage, e.flow, static_cast<uint32_t>(e.port));
  }
  from.instance.in_flight++;
  from.chain.counters.emitted++;
  const Destination to = streams_->destination(from.instance, from.fwp.stage, e.flow, e.port);
  const uint8_t* data = run.bytes.data() + e.offset;
  const MessageMeta about = from.fwp.meta[e.index];
  if (to.kind == Destination::Kind::none) {  // it has gone since the guest spoke: bytes are lost, its end is no news
    const bool bytes = e.kind == MessageKind::data || e.kind == MessageKind::datagram;
    return bytes ? from.chain.drop(from.instance, Drop::no_connection) : from.chain.finish_consumed(from.instance, 1);
  }
  if (to.kind == Destination::Kind::stage) return route(from, to, data, e.len, about.speaking_of(e.flow, e.kind));
  const iovec piece{const_cast<uint8_t*>(data), e.len};
  deliver(from, to, e.flow, e.kind, &piece, 1);
}

void Mma::move_emission(const Source& from, const Run& run, const Emission& e) {
  if (e.flow != 0) return move_stream_emission(from, run, e);
  from.instance.in_flight++;
  from.chain.counters.emitted++;
  MessageMeta meta = from.fwp.meta[e.index];
  if (meta.kind() == MessageKind::timer) {
    meta = meta.speaking_of(0, MessageKind::packet);
  } else if (meta.kind() != MessageKind::packet && meta.kind() != MessageKind::datagram) {
    meta = meta.speaking_of(meta.flow(), MessageKind::data);  // on the occasion of a connection's news, bytes for it
  }
  const uint32_t index = static_cast<uint32_t>(e.port) + 2;  // the host call has checked it
  route(from, from.stage.routes[meta.direction()][index], run.bytes.data() + e.offset, e.len, meta);
}

void Mma::route(const Source& from, const Destination& to, const uint8_t* data, uint32_t len, MessageMeta meta) {
  Chain& chain = from.chain;
  const bool packet = meta.kind() == MessageKind::packet;
  if (to.kind == Destination::Kind::upstream || (to.kind == Destination::Kind::port && ports_[to.index]->as_listener() != nullptr)) {
    const iovec piece{const_cast<uint8_t*>(data), len};
    return deliver(from, to, meta.flow(), meta.kind(), &piece, 1);
  }
  if (to.kind == Destination::Kind::port) {
    if (!packet || !ports_[to.index]->send(data, len, meta.time_ns)) return chain.drop(from.instance, Drop::tx_full);
    return chain.finish_sent(from.instance, 1);
  }
  if (meta.hops() >= kHopsMax) return chain.drop(from.instance, Drop::hop_limit);
  Fwp* next = chain.fwp(from.instance, to.index);
  if (next == nullptr) return chain.drop(from.instance, Chain::why_no_fwp(from.instance));
  if (len > next->slot_size) return chain.drop(from.instance, Drop::oversize);
  fill_slot(next->slots(), next->ring.tail++, data, len, meta.onward(to.direction, to.in_port));
  ready_.push(*next);
}

}  // namespace edgeos
