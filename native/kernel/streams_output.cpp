// What leaves: bytes from guests to sockets, the queues of those who read slowly, and the calls by which guests send.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "stream_parts.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kUpstreamOutputLimit = 256 * 1024;

size_t total(const iovec* pieces, uint32_t count) {
  size_t bytes = 0;
  for (uint32_t i = 0; i < count; i++) bytes += pieces[i].iov_len;
  return bytes;
}

// True if the guest has asked in this burst for the connection of this number.
bool asked_for(const Run& run, uint32_t flow) {
  const auto is_it = [&](const Emission& e) { return e.kind == MessageKind::open && e.flow == flow; };
  return std::any_of(run.emissions.begin(), run.emissions.end(), is_it);
}

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

// ---- From the mover ----

Delivery Streams::deliver(ChainInstance& instance, const Destination& to, uint8_t stage, uint32_t flow, MessageKind kind,
                          const iovec* pieces, uint32_t count) {
  if (kind == MessageKind::packet) return Delivery::refused;
  Connection* c = find(instance, flow);
  const bool ours = c != nullptr && c->state != ConnectionState::gone &&
                    // Of several listeners that lead to one stage, a client's answer goes to its own.
                    (to.kind == Destination::Kind::upstream ? c->upstream != 0 && c->stage == stage : c->upstream == 0);
  switch (kind) {
    case MessageKind::data:
    case MessageKind::datagram:
      if (!ours || c->finishing || c->state != ConnectionState::open) return Delivery::no_connection;
      return (c->is_udp ? write_datagrams(*c, pieces, count) : write(*c, pieces, count)) ? Delivery::sent : Delivery::no_connection;
    case MessageKind::half_closed:
      if (ours) finish(*c);
      return Delivery::consumed;
    case MessageKind::closed:
      if (ours) close_for_guest(*c);
      return Delivery::consumed;
    default: return Delivery::consumed;
  }
}

bool Streams::write(Connection& c, const iovec* pieces, uint32_t count) {
  const size_t bytes = total(pieces, count);
  size_t done = 0;
  if (c.out.size() == 0) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces);
    message.msg_iovlen = count;
    const ssize_t sent = count == 1 ? send(c.fd, pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                                    : sendmsg(c.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && !would_block()) {
      lose(c, Ending::peer);
      return false;
    }
    done = sent < 0 ? 0 : static_cast<size_t>(sent);
    if (done > 0) touch(c);
  }
  PortCounters* traffic = c.service != nullptr ? &c.service->listener.traffic() : nullptr;
  if (traffic != nullptr) traffic->sent_bytes += done;
  if (done == bytes) {
    if (traffic != nullptr) traffic->sent += count;
    return true;
  }
  for (uint32_t i = 0; i < count; i++) {
    const size_t skip = std::min(done, pieces[i].iov_len);
    c.out.append(static_cast<const uint8_t*>(pieces[i].iov_base) + skip, pieces[i].iov_len - skip);
    done -= skip;
  }
  if (c.service != nullptr) {
    c.queued_messages += count;
    c.service->listener.queued_messages += count;
  }
  update_pressure(c);
  return true;
}

void Streams::flush(Connection& c) {
  const ssize_t sent = send(c.fd, c.out.data(), c.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) {
    if (!would_block()) lose(c, c.state == ConnectionState::lingering ? Ending::guest : Ending::peer);
    return;
  }
  c.out.consume(static_cast<size_t>(sent));
  if (c.service != nullptr) c.service->listener.traffic().sent_bytes += static_cast<uint64_t>(sent);
  if (c.state == ConnectionState::lingering) {
    set_deadline(c, &lingering_);
  } else {
    touch(c);
  }
  if (c.out.size() == 0) {
    if (c.service != nullptr) {
      c.service->listener.traffic().sent += c.queued_messages;
      c.service->listener.queued_messages -= c.queued_messages;
    }
    c.queued_messages = 0;
    shut_writing(c);
  }
  if (c.state != ConnectionState::gone) update_pressure(c);
}

void Streams::finish(Connection& c) {
  if (c.is_udp || c.finishing) return;
  if (c.state != ConnectionState::open && c.state != ConnectionState::connecting) return;
  c.finishing = true;
  if (c.state == ConnectionState::open && c.out.size() == 0) shut_writing(c);
}

// Everything is out: the end of the stream follows, where the guest has asked for it.
void Streams::shut_writing(Connection& c) {
  if (!c.finishing || c.finished) return;
  c.finished = true;
  shutdown(c.fd, SHUT_WR);
  if (c.half_closed) lose(c, c.state == ConnectionState::lingering ? Ending::guest : Ending::done);
}

// The instance has done with it; what waits is still written.
void Streams::close_for_guest(Connection& c) {
  c.silent = true;
  const bool nothing_left = c.out.size() == 0 && (c.half_closed || c.finished);
  if (c.is_udp || c.state != ConnectionState::open || nothing_left) return lose(c, Ending::guest);
  if (c.upstream != 0) count_departing(c);
  detach(c);
  c.state = ConnectionState::lingering;
  c.finishing = true;
  set_deadline(c, &lingering_);
  if (c.out.size() == 0) shut_writing(c);
  if (c.state == ConnectionState::lingering && c.readable) schedule(c);
}

// Its socket stays for a while: else a guest that opens and closes without end would have more and more of them.
void Streams::count_departing(Connection& c) {
  std::shared_ptr<uint32_t>& departing = c.instance->streams.departing;
  if (departing == nullptr) departing = std::make_shared<uint32_t>(0);
  c.departing = departing;
  ++*departing;
}

// ---- Pressure ----

uint32_t Streams::output_limit(const Connection& c) const {
  return c.service != nullptr ? c.service->listener.settings().output_limit : kUpstreamOutputLimit;
}

void Streams::update_pressure(Connection& c) {
  const size_t waiting = c.out.size();
  const uint32_t limit = output_limit(c);
  c.full.store(waiting > 2 * size_t{limit}, std::memory_order_relaxed);
  set_pressure(c, waiting > (c.over ? limit / 2 : limit), c.waiting_stages);
}

void Streams::set_pressure(Connection& c, bool over, uint16_t waiting_stages) {
  const bool was_over = c.over, was_held = c.over || c.waiting_stages != 0, is_held = over || waiting_stages != 0;
  const bool has_news = waiting_stages != 0 && !over && (was_over || c.waiting_stages == 0);
  c.over = over;
  c.waiting_stages = waiting_stages;
  if (c.instance == nullptr) return;
  ChainInstance& instance = *c.instance;
  if (instance.isolation != Isolation::shared) {
    InstanceStreams& s = instance.streams;
    uint32_t& held = c.upstream != 0 ? s.held_clients : s.held;
    held += is_held;
    held -= was_held;
    if (c.upstream == 0) {
      const bool was_stalled = s.stalled > 0;
      s.stalled += over;
      s.stalled -= was_over;
      if (was_stalled && s.stalled == 0)
        for (Fwp* fwp : instance.fwps)
          if (fwp != nullptr && fwp->ring.size() > 0) ready_.push(*fwp);
    }
    if (was_held && !is_held && held == 0) wake_held_back(instance);
  }
  if (has_news || (was_held && !is_held && c.place == Connection::Place::held_back)) schedule(c);
}

Destination Streams::destination(ChainInstance& instance, uint8_t stage, uint32_t flow, int32_t to) const {
  const Connection* c = find(instance, flow);
  if (c == nullptr || (c->upstream != 0 && c->stage != stage)) return {};
  return instance.chain->spec().stages[stage].routes[c->direction][static_cast<uint32_t>(to) + 2];
}

void Streams::wants_room(ChainInstance& instance, uint8_t stage, uint32_t flow) {
  Connection* c = find(instance, flow);
  if (c == nullptr) return;
  c->cut_short.fetch_and(static_cast<uint16_t>(~(1u << stage)), std::memory_order_relaxed);
  if (c->state == ConnectionState::gone) return;
  set_pressure(*c, c->over, static_cast<uint16_t>(c->waiting_stages | 1u << stage));
}

// ---- From the thread that runs guests ----

bool Streams::knows(const Run& run, uint64_t flow) {
  return flow <= UINT32_MAX && index_.find_for_guest(run.fwp->owner->number, static_cast<uint32_t>(flow), [](Connection&) {});
}

int32_t Streams::call_stream(Run& run, uint32_t index, uint64_t flow, int32_t to, int32_t kind, uint32_t address, uint32_t len) {
  constexpr int32_t kRefused = -1, kNoRoom = -2;
  Fwp& fwp = *run.fwp;
  const ChainInstance& instance = *fwp.owner;
  const auto what = static_cast<MessageKind>(kind);
  const bool bytes = kind == int32_t(MessageKind::data) || kind == int32_t(MessageKind::datagram);
  const bool ends = kind == int32_t(MessageKind::half_closed) || kind == int32_t(MessageKind::closed);
  const uint32_t verdict = static_cast<uint32_t>(to) + 2;
  if ((!bytes && !ends) || flow == 0 || flow > UINT32_MAX || verdict >= kRoutes || to == kVerdictDrop) return kRefused;
  if (!bytes) len = 0;
  const uint64_t end = uint64_t{address} + len;
  if (len > 0 && end > fwp.memory_size && end > fwp.refresh_memory_size()) return kRefused;
  const auto own_bit = static_cast<uint16_t>(1u << fwp.stage);
  const auto number = static_cast<uint32_t>(flow);

  Destination destination;
  bool datagram = false, full = false, refused = false, connecting = false;
  const auto cut_short = [&] {
    index_.find_for_guest(instance.number, number, [&](Connection& c) {
      if ((c.cut_short.fetch_or(own_bit, std::memory_order_relaxed) & own_bit) == 0) run.cut_short.push_back(number);
    });
  };
  const bool found = index_.find_for_guest(instance.number, number, [&](Connection& c) {
    destination = instance.chain->spec().stages[fwp.stage].routes[c.direction][verdict];
    if (c.upstream != 0 && c.stage != fwp.stage) destination = Destination{};
    datagram = c.is_udp;
    connecting = c.upstream != 0 && !c.announced.load(std::memory_order_relaxed);
    full = connecting || c.full.load(std::memory_order_relaxed);
    refused = destination.kind == Destination::Kind::none || (c.closed_by & own_bit) != 0 ||
              ((c.finished_by & own_bit) != 0 && what != MessageKind::closed && to == kVerdictBack);
  });
  if (!found && bytes && asked_for(run, number)) {  // in this very burst; it takes bytes when it is open
    if (std::find(run.cut_short.begin(), run.cut_short.end(), number) == run.cut_short.end()) run.cut_short.push_back(number);
    return 0;
  }
  if (!found || refused) return kRefused;

  const bool to_stage = destination.kind == Destination::Kind::stage;
  uint64_t take = len;
  if (bytes && len == 0) return 0;
  if (bytes) {
    if (datagram && len > kDatagramBytesMax) return kRefused;
    uint64_t room = kEmitBytesMax - std::min<uint64_t>(kEmitBytesMax, run.bytes.size());
    if (to_stage) {
      const Pool& next = *instance.chain->spec().stages[destination.index].pool;
      const uint32_t slot_size = next.tmpl().layout().slot_size;
      if (datagram && len > slot_size) return kRefused;
      // One message for each slot's worth; datagrams are not divided.
      room = std::min<uint64_t>(room, uint64_t{run.emit_room - run.emitted} * slot_size);
    } else if (full || run.stream_ops >= kStreamOpsMax) {
      room = 0;
    }
    take = std::min<uint64_t>(len, room);
    if (datagram && take < len) take = 0;
  } else if (to_stage && run.emitted >= run.emit_room) {
    cut_short();
    return kNoRoom;
  }
  if (take < len) cut_short();
  if (ends)
    index_.find_for_guest(instance.number, number, [&](Connection& c) {
      if (to != kVerdictBack) return;
      (what == MessageKind::closed ? c.closed_by : c.finished_by) |= own_bit;
    });
  if (bytes && take == 0) return 0;

  const uint8_t* data = fwp.memory + address;
  uint64_t piece = take;
  if (to_stage && bytes) piece = instance.chain->spec().stages[destination.index].pool->tmpl().layout().slot_size;
  uint64_t offset = 0;
  do {
    const uint64_t part = std::min(piece, take - offset);
    Emission* last = run.emissions.empty() ? nullptr : &run.emissions.back();
    const bool joins = !to_stage && bytes && !datagram && last != nullptr && last->flow == number && last->kind == what &&
                       last->port == to && last->index == index && last->offset + last->len == run.bytes.size();
    if (joins) {
      last->len += static_cast<uint32_t>(part);
    } else {
      const MessageKind as = bytes ? (datagram ? MessageKind::datagram : MessageKind::data) : what;
      run.emissions.push_back({index, to, static_cast<uint32_t>(run.bytes.size()), static_cast<uint32_t>(part), number, as});
      to_stage ? run.emitted++ : run.stream_ops++;
    }
    if (part > 0) run.bytes.insert(run.bytes.end(), data + offset, data + offset + part);
    offset += part;
  } while (offset < take);
  return ends ? 0 : static_cast<int32_t>(take);
}

int64_t Streams::call_connect(Run& run, uint32_t upstream) {
  const std::vector<uint32_t>& connects = run.fwp->tmpl().grants().connects;
  if (upstream >= connects.size() || run.connect_room == 0) return -1;
  run.connect_room--;
  run.connects++;
  const uint32_t flow = run.fwp->owner->next_flow();
  const uint32_t last = run.first + run.count - 1;
  run.emissions.push_back({last, static_cast<int32_t>(upstream), 0, 0, flow, MessageKind::open});
  return flow;
}

}  // namespace edgeos
