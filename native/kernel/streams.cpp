#include "streams.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "../ports/offload.hpp"
#include "stream_parts.hpp"

namespace edgeos {
namespace {

// So few at once that what one round touches (connections, their FWPs and guests' pages, the kernel's sockets) is still in the
// processor's own cache when its messages are handled and its answers sent.
constexpr int kEvents = 32;           // taken from the epoll set at once
constexpr uint32_t kServedMax = 128;  // connections served between two looks at the rest of the node; more than come at once
constexpr uint32_t kReadsMax = 4;     // reads of one connection before the next one's turn
constexpr uint32_t kSlotsAtOnce = 8;  // that one read fills, once a first one has filled a slot
constexpr uint64_t kHeaderNs = 10'000'000'000;  // for a PROXY header, where no open_timeout says otherwise
constexpr uint32_t kDiscardMax = 1 << 16;  // bytes thrown away at once of a connection that is closed

// Sockets that guests may have: what the limit of open files leaves when all listeners are full.
uint32_t upstreams_allowed(const std::vector<Port*>& ports) {
  uint64_t taken = kSpareDescriptors + kUpstreamsMin;
  for (Port* port : ports)
    if (const Listener* listener = port->as_listener(); listener != nullptr && !listener->is_udp())
      taken += listener->settings().max_connections;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  return kUpstreamsMin + static_cast<uint32_t>(std::min<uint64_t>(files.rlim_cur - std::min<uint64_t>(files.rlim_cur, taken), 1u << 30));
}

}  // namespace

Service::Service(Listener& l, uint16_t number) : listener(l), port(number) {
  opening.timeout_ns = l.settings().open_timeout_ns;
  greeting.timeout_ns = opening.timeout_ns > 0 ? opening.timeout_ns : kHeaderNs;
  opening.ending = Ending::open_timeout;
  quiet.timeout_ns = l.settings().idle_timeout_ns;
  quiet.ordered = l.is_udp();
}

Streams::Streams(const std::vector<Port*>& ports, std::vector<UpstreamSettings> upstreams, Dispatcher& dispatcher,
                 ReadyList& ready)
    : upstreams_(std::move(upstreams)),
      upstreams_max_(upstreams_allowed(ports)),
      dispatcher_(dispatcher),
      ready_(ready),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      spare_fd_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
  if (epoll_.get() < 0) throw_errno("epoll", "cannot make a set", "raise the limit of open files, `ulimit -n`");
  connecting_.timeout_ns = kConnectNs;
  connecting_.ending = Ending::open_timeout;
  lingering_.timeout_ns = kLingerNs;
  lingering_.ending = Ending::guest;
  dispatcher_.set_streams(this);
}

void Streams::add_listener(Listener& listener, uint16_t port) {
  services_.push_back(std::make_unique<Service>(listener, port));
  if (listener.is_udp()) prepare_datagrams();
  if (!watch(listener.fd(), service_tag(services_.back().get()), EPOLLIN, EPOLL_CTL_ADD))
    throw_errno(listener.name(), "cannot wait for the listener", "raise fs.epoll.max_user_watches");
}

void Streams::remove_listener(Listener& listener) {
  const auto of_it = [&](const auto& service) { return &service->listener == &listener; };
  const auto found = std::find_if(services_.begin(), services_.end(), of_it);
  if (found == services_.end()) return;
  Service& service = **found;
  stop_listening(service);
  if (listener.is_udp()) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.fd(), nullptr);
  while (!service.flows.empty()) lose(*service.flows.begin()->second, Ending::evicted);
  listener.close();
}

Streams::~Streams() {
  if (spare_fd_ >= 0) close(spare_fd_);
  for (Connection& c : all_)
    if (c.fd >= 0) close(c.fd);
}

bool Streams::watch(int fd, uint64_t tag, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
}

bool Streams::receive(uint64_t now_ns) {
  now_ns_ = now_ns;
  time_ns_ = wall_clock_ns();
  epoll_event events[kEvents];
  const int count = epoll_wait(epoll_.get(), events, kEvents, 0);
  for (int i = 0; i < count; i++)
    if (service_of(events[i].data.u64) == nullptr) connection_of(events[i].data.u64)->prefetch();
  for (int i = 0; i < count; i++) handle_event(events[i].data.u64, events[i].events);
  if (waiting_until_ns_ <= now_ns_ || answers_seen_ != dispatcher_.answers()) {
    waiting_until_ns_ = UINT64_MAX;
    answers_seen_ = dispatcher_.answers();
    while (Connection* c = waiting_.front()) schedule(*c);
  }
  uint32_t served = 0;
  for (; !work_.empty() && served < kServedMax; served++) {
    Connection& c = *work_.front();
    prefetch_after(c);
    unplace(c);
    serve(c);
  }
  return count > 0 || served > 0;
}

void Streams::handle_event(uint64_t tag, uint32_t events) {
  if (Service* service = service_of(tag)) {
    if (service->listener.is_udp()) return receive_datagrams(*service);
    return accept_from(*service);
  }
  Connection& c = *connection_of(tag);
  const bool closing = (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0;
  if (c.state == ConnectionState::connecting) {  // one that is not under way yet reports a hang-up too
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) finish_connect(c);
    c.peer_closing = c.state == ConnectionState::open && closing;
    return;
  }
  c.peer_closing |= closing;
  if (c.state == ConnectionState::header) return read_header(c);
  if (c.state == ConnectionState::hello) return read_hello(c);
  if (c.state == ConnectionState::undecided) return;  // what came lies there until it is known who hears it
  if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && c.out.size() > 0) flush(c);
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) == 0) return;
  c.readable = true;
  if (c.instance != nullptr) c.instance->prefetch();
  if (c.place == Connection::Place::none) schedule(c);
}

// ---- Towards the instance ----

// With an FWP for each of many clients all that a message needs is far away, and one thing leads to the next: from the connection
// to its instance, its FWP, and that one's slot. Each is fetched while those in front of it are served.
void Streams::prefetch_after(const Connection& c) {
  const Connection* next = WorkList::next(c);
  const auto fwp_of = [](const Connection* of) { return of->instance == nullptr ? nullptr : of->instance->fwps[of->stage]; };
  if (next == nullptr) return;
  if (const Fwp* fwp = fwp_of(next); fwp != nullptr) fwp->prefetch();
  if (const Connection* second = WorkList::next(*next); second != nullptr)
    if (const Fwp* fwp = fwp_of(second); fwp != nullptr) fwp->prefetch_record();
}

// Most instances have one connection at a time, and then it is the one that was looked up before.
Connection* Streams::find(ChainInstance& instance, uint32_t flow) const {
  InstanceStreams& s = instance.streams;
  if (s.latest_flow == flow && flow != 0) return s.latest;
  Connection* c = index_.find(instance.number, flow);
  if (c != nullptr) {
    s.latest = c;
    s.latest_flow = flow;
  }
  return c;
}

void Streams::serve(Connection& c) {
  if (c.state == ConnectionState::lingering) return linger(c);
  if (c.state == ConnectionState::undecided) return choose_chain(c);
  ChainInstance* instance = c.instance;
  if (instance != nullptr && !tell_news(c)) return park(c);
  if (c.state == ConnectionState::gone) {
    release(c);
  } else if (c.state == ConnectionState::open && c.readable && !c.half_closed) {
    if (!may_read(c)) return hold_back(c);
    if (!within_quota(c)) return wait(c, instance->tenant->admits_at_ns());
    read(c);
  }
  // One that needed no room hands its turn on.
  if (instance != nullptr && instance->chain != nullptr && c.place != Connection::Place::parked) room(*instance);
}

bool Streams::may_read(const Connection& c) const {
  const InstanceStreams& s = c.instance->streams;
  if (s.held > 0) return false;
  return c.upstream != 0 || (s.held_clients == 0 && !c.over && c.waiting_stages == 0);
}

// A socket is not read while its tenant may not be given more.
bool Streams::within_quota(const Connection& c) const {
  Drop why{};
  return c.instance->tenant == nullptr || c.instance->tenant->admits(now_ns_, why);
}

// What the instance must hear of, in order; false when it has no room for it now.
bool Streams::tell_news(Connection& c) {
  const bool gone = c.state == ConnectionState::gone;
  if (c.state == ConnectionState::open && !c.announced.load(std::memory_order_relaxed)) {
    const GuestEndpoints ends = guest_endpoints(c);
    if (!tell(c, MessageKind::open, &ends, sizeof ends, c.stage)) return false;
    c.announced.store(true, std::memory_order_relaxed);
  }
  if (c.announced.load(std::memory_order_relaxed) && !gone && c.waiting_stages != 0 && !c.over) {
    uint16_t left = c.waiting_stages;
    for (uint8_t stage = 0; stage < kStagesMax; stage++) {
      if ((left >> stage & 1) == 0) continue;
      if (!tell(c, MessageKind::room, nullptr, 0, stage)) break;
      left = static_cast<uint16_t>(left & ~(1u << stage));
    }
    set_pressure(c, c.over, left);
    if (left != 0) return false;
  }
  // A client that was gone before it was announced need not be spoken of; a connection that a guest asked for must.
  if (!gone || c.silent || !c.is_known()) return true;
  return tell(c, MessageKind::closed, nullptr, 0, c.stage);
}

bool Streams::tell(Connection& c, MessageKind kind, const void* data, uint32_t len, uint8_t stage) {
  ChainInstance& instance = *c.instance;
  Chain& chain = *instance.chain;
  if (chain.entry_room(instance) == 0 || (kind == MessageKind::room && chain.emit_room(instance) == 0)) return false;
  Fwp* fwp = chain.fwp(instance, stage);
  if (fwp == nullptr) {  // nobody is there to hear it
    if (c.state != ConnectionState::gone) lose(c, Ending::killed, true);
    c.silent = true;
    return true;
  }
  if (len > 0) std::memcpy(fwp->slot(fwp->ring.index(fwp->ring.tail)), data, len);
  push(*fwp, c, kind, len, stage);
  return true;
}

// The message's bytes are in the next slot already.
void Streams::push(Fwp& fwp, Connection& c, MessageKind kind, uint32_t len, uint8_t stage) {
  const uint32_t slot = fwp.ring.index(fwp.ring.tail++);
  const MessageMeta meta = MessageMeta::make(time_ns_, c.flow, kind, c.direction, stage == c.stage ? c.in_port : 0);
  fwp.messages()[slot].set(fwp.slot_address(slot), len, fwp.slot_size, meta);
  fwp.meta[slot] = meta;
  c.instance->in_flight++;
  c.instance->chain->counters.received++;
  if (c.instance->tenant != nullptr) c.instance->tenant->enter(len, now_ns_);
  received_++;
  if (c.service != nullptr) {
    PortCounters& traffic = c.service->listener.traffic();
    traffic.received++;
    if (kind == MessageKind::data || kind == MessageKind::datagram) traffic.received_bytes += len;
  }
  ready_.push(fwp);
}

// Straight into the ring: a first read of one slot, then of several at once while they come back full.
void Streams::read(Connection& c) {
  ChainInstance& instance = *c.instance;
  Chain& chain = *instance.chain;
  const MessageKind kind = c.is_udp ? MessageKind::datagram : MessageKind::data;
  uint32_t slots = 1;
  for (uint32_t reads = 0; reads < kReadsMax; reads++) {
    const uint32_t room = chain.entry_room(instance);
    if (room == 0) return park(c);
    Fwp* fwp = chain.fwp(instance, c.stage);
    if (fwp == nullptr) {
      lose(c, Ending::killed, true);
      c.silent = true;
      return;
    }
    iovec pieces[kSlotsAtOnce];
    slots = std::min({slots, room, kSlotsAtOnce});
    for (uint32_t i = 0; i < slots; i++) pieces[i] = {fwp->slot(fwp->ring.index(fwp->ring.tail + i)), fwp->slot_size};
    const ssize_t got = slots == 1 ? recv(c.fd, pieces[0].iov_base, pieces[0].iov_len, 0)
                                   : readv(c.fd, pieces, static_cast<int>(slots));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      c.readable = false;
      return;
    }
    if (got < 0) return lose(c, Ending::peer);
    if (got == 0 && !c.is_udp) {
      c.half_closed = true;
      push(*fwp, c, MessageKind::half_closed, 0, c.stage);
      if (c.finished) lose(c, Ending::done);
      return;
    }
    const auto bytes = static_cast<size_t>(got);
    size_t left = bytes;
    do {
      const auto len = static_cast<uint32_t>(std::min<size_t>(left, fwp->slot_size));
      push(*fwp, c, kind, len, c.stage);
      left -= len;
    } while (left > 0);
    chain.touch(instance, now_ns_);
    touch(c);
    if (bytes < size_t{slots} * fwp->slot_size && !c.peer_closing && !c.is_udp) {
      c.readable = false;  // it was emptied; what comes now makes an event
      return;
    }
    slots = c.is_udp ? 1 : kSlotsAtOnce;
  }
  schedule(c);
}

// The peer must have read what was sent before the socket goes, or a reset could overtake it; so the connection stays until
// the peer closes too, within limits.
void Streams::linger(Connection& c) {
  if (!c.readable) return;
  uint32_t discarded = 0;
  uint8_t waste[4096];
  while (discarded < kDiscardMax) {
    const ssize_t got = recv(c.fd, waste, sizeof waste, 0);
    if (got > 0) {
      discarded += static_cast<uint32_t>(got);
      continue;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
      c.readable = false;
      return;
    }
    c.half_closed = true;
    if (got < 0 || c.out.size() == 0) {
      lose(c, Ending::guest);
    } else {
      c.readable = false;
    }
    return;
  }
  schedule(c);
}

// ---- Lives and lists ----

Connection& Streams::new_connection() {
  if (free_.empty()) return all_.emplace_back();
  Connection& c = *free_.back();
  free_.pop_back();
  std::destroy_at(&c);
  return *std::construct_at(&c);
}

void Streams::bind_instance(Connection& c, ChainInstance& instance, uint32_t flow) {
  InstanceStreams& s = instance.streams;
  c.instance = &instance;
  c.flow = flow;
  s.connections.push_back(c);
  c.upstream != 0 ? s.upstreams++ : s.clients++;
  if (c.upstream == 0) s.leaving = false;
  if (c.upstream == 0 && s.clients == 1) instance.chain->set_connected(instance, true, now_ns_);
  while (!index_.insert(instance.number, c.flow, c)) c.flow = instance.next_flow();
}

void Streams::detach(Connection& c) {
  ChainInstance* instance = c.instance;
  if (instance == nullptr) return;
  set_pressure(c, false, 0);
  unplace(c);
  index_.erase(instance->number, c.flow);
  InstanceStreams& s = instance->streams;
  if (s.latest == &c) s.latest_flow = 0;
  s.connections.remove(c);
  c.upstream != 0 ? s.upstreams-- : s.clients--;
  s.untold -= c.state == ConnectionState::gone && c.is_known();
  c.instance = nullptr;
  if (c.upstream != 0 || s.clients > 0) return;
  instance->chain->set_connected(*instance, false, now_ns_);
  if (instance->isolation == Isolation::flow && !s.leaving) {
    s.leaving = true;
    leaving_.push_back(instance->number);
  }
}

// Ends the connection: the socket goes now, the record when its instance has been told.
void Streams::lose(Connection& c, Ending ending, bool reset) {
  if (c.state == ConnectionState::gone || c.state == ConnectionState::free) return;
  if (c.state == ConnectionState::header || c.state == ConnectionState::hello) {
    const Refusal too_late = c.state == ConnectionState::hello ? Refusal::no_hello : Refusal::header_timeout;
    return turn_away(c, ending == Ending::evicted ? Refusal::stopping : too_late);
  }
  if (c.state == ConnectionState::undecided)
    return turn_away(c, ending == Ending::evicted ? Refusal::stopping : Refusal::undecided);
  if (c.service != nullptr) {
    Service& service = *c.service;
    Listener& listener = service.listener;
    listener.connections.connections--;
    listener.connections.ended[size_t(ending)]++;
    listener.traffic().send_dropped += c.queued_messages;
    listener.queued_messages -= c.queued_messages;
    if (listener.is_udp()) service.flows.erase({c.peer, c.local});
    leave_client(c);
  }
  c.queued_messages = 0;
  c.out.clear();
  set_pressure(c, false, 0);
  set_deadline(c, nullptr);
  if (c.fd >= 0) {
    const struct linger at_once{1, 0};
    if (reset) setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(c.fd);
    upstreams_open_ -= c.upstream != 0;
  }
  if (c.departing != nullptr) --*c.departing;
  c.departing.reset();
  c.fd = -1;
  c.readable = false;
  c.state = ConnectionState::gone;
  if (c.instance != nullptr) c.instance->streams.untold += c.is_known();
  unplace(c);
  schedule(c);
}

void Streams::release(Connection& c) {
  detach(c);
  unplace(c);
  c.state = ConnectionState::free;
  free_.push_back(&c);
}

void Streams::schedule(Connection& c) {
  unplace(c);
  work_.push_back(c);
  c.place = Connection::Place::work;
}

void Streams::park(Connection& c) {
  unplace(c);
  c.instance->streams.parked.push_back(c);
  c.place = Connection::Place::parked;
}

void Streams::wait(Connection& c, uint64_t until_ns) {
  unplace(c);
  waiting_.push_back(c);
  c.place = Connection::Place::waiting;
  waiting_until_ns_ = std::min(waiting_until_ns_, until_ns);
}

void Streams::hold_back(Connection& c) {
  unplace(c);
  c.instance->streams.held_back.push_back(c);
  c.place = Connection::Place::held_back;
}

void Streams::unplace(Connection& c) {
  if (c.place == Connection::Place::work) work_.remove(c);
  if (c.place == Connection::Place::parked) c.instance->streams.parked.remove(c);
  if (c.place == Connection::Place::waiting) waiting_.remove(c);
  if (c.place == Connection::Place::held_back) c.instance->streams.held_back.remove(c);
  c.place = Connection::Place::none;
}

// As many as there is room for; each that uses none wakes the next.
void Streams::wake_parked(ChainInstance& instance) {
  InstanceStreams& s = instance.streams;
  for (uint32_t room = instance.chain->entry_room(instance); room > 0 && !s.parked.empty(); room--) schedule(*s.parked.front());
}

void Streams::wake_held_back(ChainInstance& instance) {
  while (Connection* c = instance.streams.held_back.front()) schedule(*c);
}

void Streams::set_deadline(Connection& c, Deadlines* deadlines) {
  if (c.deadlines != nullptr) c.deadlines->list.remove(c);
  c.deadlines = deadlines != nullptr && (deadlines->timeout_ns > 0 || deadlines->ordered) ? deadlines : nullptr;
  if (c.deadlines == nullptr) return;
  c.since_ns = now_ns_;
  c.deadlines->list.push_back(c);
}

// There was traffic.
void Streams::touch(Connection& c) {
  if (c.service == nullptr || c.state != ConnectionState::open) return;
  Service& service = *c.service;
  const bool opening = c.deadlines == &service.opening;
  if (opening || (c.deadlines != nullptr && now_ns_ - c.since_ns > c.deadlines->timeout_ns / 16))
    set_deadline(c, &service.quiet);
}

void Streams::expire_list(Deadlines& deadlines, uint32_t& most) {
  for (; most > 0 && deadlines.timeout_ns > 0 && !deadlines.list.empty(); most--) {
    Connection& c = *deadlines.list.front();
    if (c.since_ns + deadlines.timeout_ns > now_ns_) break;
    const bool parked = c.place == Connection::Place::parked || c.place == Connection::Place::held_back;
    if ((parked || c.place == Connection::Place::waiting) && c.readable && !c.over) {
      set_deadline(c, &deadlines);  // it is its instance or its tenant that makes it wait
    } else {
      lose(c, deadlines.ending);
    }
  }
}

void Streams::expire(uint64_t now_ns, uint32_t most) {
  now_ns_ = now_ns;
  for (Deadlines* d : {&connecting_, &lingering_}) expire_list(*d, most);
  for (const auto& service : services_) {
    expire_list(service->greeting, most);
    expire_list(service->opening, most);
    expire_list(service->quiet, most);
    if (service->paused_until_ns != 0 && service->paused_until_ns <= now_ns) {
      service->paused_until_ns = 0;
      watch(service->listener.fd(), service_tag(service.get()), EPOLLIN, EPOLL_CTL_MOD);
    }
  }
  std::erase_if(leaving_, [&](uint32_t number) {
    ChainInstance& instance = dispatcher_.instance(number);
    if (instance.chain == nullptr || !instance.streams.leaving) return true;
    if (instance.in_flight > 0) return false;
    instance.streams.leaving = false;
    dispatcher_.expire_now(instance);
    return true;
  });
}

uint64_t Streams::next_expiry_ns() const {
  // Defaults for want of an answer are set between looks at the connections that wait for one.
  const bool answered = answers_seen_ != dispatcher_.answers();
  uint64_t next = work_.empty() && !answered ? waiting_until_ns_ : now_ns_;
  const auto look = [&](const Deadlines& d) {
    if (d.timeout_ns > 0 && !d.list.empty()) next = std::min(next, d.list.front()->since_ns + d.timeout_ns);
  };
  look(connecting_);
  look(lingering_);
  for (const auto& service : services_) {
    look(service->greeting);
    look(service->opening);
    look(service->quiet);
    if (service->paused_until_ns != 0) next = std::min(next, service->paused_until_ns);
  }
  return next;
}

void Streams::killed(ChainInstance& instance, uint8_t stage) {
  InstanceStreams& s = instance.streams;
  const auto lives = [](const Fwp* fwp) { return fwp != nullptr; };
  const bool anybody = std::any_of(instance.fwps.begin(), instance.fwps.end(), lives);
  for (Connection *c = s.connections.front(), *next; c != nullptr; c = next) {
    next = InstanceList::next(*c);
    if (c->upstream != 0 && c->stage != stage) continue;
    lose(*c, Ending::killed, true);
    c->silent = !anybody || c->upstream != 0;
  }
  room(instance);  // its messages are gone
}

void Streams::leave(ChainInstance& instance) {
  InstanceStreams& s = instance.streams;
  while (Connection* c = s.connections.front()) {
    if (c->upstream != 0 && c->state == ConnectionState::open) {
      close_for_guest(*c);  // what it was sent still reaches it
      if (c->instance == nullptr) continue;
    } else {
      lose(*c, Ending::evicted, true);
    }
    detach(*c);
    schedule(*c);
  }
  s.leaving = false;
}

void Streams::stop_listening() {
  for (const auto& service : services_) stop_listening(*service);
}

void Streams::stop_listening(Service& service) {
  if (service.stopped) return;
  service.stopped = true;
  service.paused_until_ns = 0;
  if (service.listener.is_udp()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, service.listener.fd(), nullptr);
  service.listener.stop();
}

void Streams::shut_down() {
  stop_listening();
  for (Connection& c : all_) lose(c, Ending::evicted, true);
}

}  // namespace edgeos
