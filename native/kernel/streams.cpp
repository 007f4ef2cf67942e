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
    : ports_(ports),
      upstreams_(std::move(upstreams)),
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
  auto service = std::make_unique<Service>(listener, port);
  services_.reserve(services_.size() + 1);  // once it is watched nothing may fail
  if (listener.is_udp()) prepare_datagrams();
  if (!watch(listener.fd(), service_tag(service.get()), 0, EPOLL_CTL_ADD))
    throw_errno(listener.name(), "cannot wait for the listener", "raise fs.epoll.max_user_watches");
  services_.push_back(std::move(service));
}

Service& Streams::service_at(const Listener& listener) {
  const auto of_it = [&](const auto& service) { return &service->listener == &listener; };
  return **std::find_if(services_.begin(), services_.end(), of_it);
}

void Streams::open_listener(Listener& listener) {
  Service& service = service_at(listener);
  upstreams_max_ = upstreams_allowed(ports_);  // it may have come to a running node
  if (!service.stopped) watch(listener.fd(), service_tag(&service), EPOLLIN, EPOLL_CTL_MOD);
}

void Streams::remove_listener(Listener& listener) {
  Service& service = service_at(listener);
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

}  // namespace edgeos
