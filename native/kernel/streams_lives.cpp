// The lives of connections: from record to record, the lists that they wait in, their deadlines, and what ends them.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

#include "stream_parts.hpp"

namespace edgeos {

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
  if (c.upstream == 0) dispatcher_.let_stay(instance);
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
  if (instance->isolation == Isolation::flow) dispatcher_.let_go(*instance);
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

// ---- Lists that connections wait in ----

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

// ---- Time ----

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

// ---- Ends that others bring about ----

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
