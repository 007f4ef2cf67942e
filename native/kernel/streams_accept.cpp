// How connections come to be: accepted from listeners, opened to upstreams; and who is let in.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <bit>

#include "../ports/client_hello.hpp"
#include "../ports/proxy_protocol.hpp"
#include "stream_parts.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kAcceptsMax = 64;             // of one listener between two looks at the rest
constexpr uint64_t kPauseNs = 100'000'000;       // without descriptors
constexpr uint32_t kWatched = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

Refusal refusal_of(Drop why) {
  switch (why) {
    case Drop::rule: return Refusal::rule;
    case Drop::max_fwps: return Refusal::max_fwps;
    case Drop::no_fwp: return Refusal::no_fwp;
    case Drop::blocked: return Refusal::blocked;
    case Drop::max_clients: return Refusal::max_clients;
    case Drop::new_clients: return Refusal::new_clients;
    case Drop::tenant_clients: return Refusal::tenant_clients;
    case Drop::tenant_fwps: return Refusal::tenant_fwps;
    case Drop::tenant_memory: return Refusal::tenant_memory;
    case Drop::undecided: return Refusal::undecided;
    case Drop::unasked: return Refusal::unasked;
    case Drop::unmatched: return Refusal::unmatched;
    case Drop::draining: return Refusal::stopping;
    default: return Refusal::no_rule;
  }
}

Endpoint local_end(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return endpoint_from(address);
}

// Whom the connection counts for.
Address client_of(const Connection& c) {
  return client_prefix(c.peer.address, c.service->listener.settings().client_prefix_v6);
}

void close_at_once(int fd) {
  const struct linger at_once{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(fd);
}

void set_no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// A connection as rules see it: a packet from the client.
ParsedPacket as_packet(const Connection& c, uint16_t domain) {
  ParsedPacket p;
  p.source = c.peer.address;
  p.destination = c.local.address;
  p.source_port = c.peer.port;
  p.destination_port = c.local.port;
  p.ip_version = c.local.family;
  p.protocol = c.is_udp ? IPPROTO_UDP : IPPROTO_TCP;
  p.key.a = p.source;
  p.key.b = p.destination;
  p.key.set_transport(p.source_port, p.destination_port, p.protocol, KeyKind::flow, p.ip_version == 0);
  p.key.set_scope(0, domain, 0);
  return p;
}

}  // namespace

void Streams::refuse(Service& service, Refusal reason, int fd) {
  service.listener.connections.refused[size_t(reason)]++;
  if (fd >= 0) close_at_once(fd);
}

void Streams::accept_from(Service& service) {
  const bool stream = service.listener.settings().kind == ListenerKind::tcp;
  for (uint32_t i = 0; i < kAcceptsMax; i++) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd = accept4(service.listener.fd(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return refuse_without_descriptors(service);
      if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
      return;
    }
    if (service.listener.connections.connections + service.awaited >= service.listener.settings().max_connections) {
      refuse(service, Refusal::max_connections, fd);
    } else if (!service.listener.within_rate(now_ns_)) {
      refuse(service, Refusal::accept_rate, fd);
    } else {
      if (stream) set_no_delay(fd);
      start(service, fd, endpoint_from(address));
    }
  }
}

// A descriptor that was kept for this is given up, so that the client is turned away and not left to wait. Where even that
// does not help the listener rests for a while, since epoll would not.
void Streams::refuse_without_descriptors(Service& service) {
  service.listener.note("no more file descriptors: raise the limit of open files, `ulimit -n`");
  if (spare_fd_ >= 0) close(spare_fd_);
  const int fd = accept4(service.listener.fd(), nullptr, nullptr, SOCK_CLOEXEC);
  if (fd >= 0) refuse(service, Refusal::no_descriptors, fd);
  spare_fd_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (fd >= 0 && spare_fd_ >= 0) return;
  service.paused_until_ns = now_ns_ + kPauseNs;
  watch(service.listener.fd(), service_tag(&service), 0, EPOLL_CTL_MOD);
}

void Streams::start(Service& service, int fd, const Endpoint& peer) {
  Connection& c = new_connection();
  c.fd = fd;
  c.service = &service;
  c.peer = peer;
  c.local = local_end(fd);
  c.state = ConnectionState::header;
  service.awaited++;
  if (!watch(fd, connection_tag(&c), kWatched, EPOLL_CTL_ADD)) return turn_away(c, Refusal::no_descriptors);
  if (!service.listener.settings().proxy_protocol) return let_in(c);
  set_deadline(c, &service.greeting);  // an event comes when there is something to read
}

// It is known who the client is, and from here on it is counted, though nobody may hear of it yet.
void Streams::let_in(Connection& c) {
  if (Refusal why{}; !join_client(c, why)) return turn_away(c, why);
  if (c.is_udp || c.local.family == 0 || !dispatcher_.asks_server_name(c.service->port)) return choose_chain(c);
  c.state = ConnectionState::hello;
  set_deadline(c, &c.service->greeting);
  read_hello(c);
}

// The first bytes are looked at where they lie, and stay there: they are the guest's. The kernel wakes us when as many are
// there as are needed, so that a client which sends them one by one costs no more than others.
void Streams::read_hello(Connection& c) {
  std::array<uint8_t, kClientHelloMax> bytes;
  const ssize_t got = recv(c.fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return turn_away(c, Refusal::no_hello);
  ClientHello hello = parse_client_hello(std::span(bytes).first(got > 0 ? static_cast<size_t>(got) : 0));
  const bool more = hello.status == ClientHello::Status::need_more && got != 0 && !c.peer_closing;
  const int wanted = more ? static_cast<int>(hello.needed) : 1;
  setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted);
  if (more) return;
  c.server_name = std::move(hello.server_name);
  c.readable = true;
  choose_chain(c);
}

void Streams::choose_chain(Connection& c) {
  Service& service = *c.service;
  Refusal why = Refusal::no_rule;
  c.readable |= c.state == ConnectionState::undecided;
  if (!attach(c, why)) {
    if (why != Refusal::undecided) return turn_away(c, why);
    c.state = ConnectionState::undecided;
    set_deadline(c, nullptr);  // the answer has a deadline of its own
    return wait(c, UINT64_MAX);
  }
  service.awaited--;
  service.listener.connections.accepted++;
  service.listener.connections.connections++;
  set_deadline(c, service.opening.timeout_ns > 0 ? &service.opening : &service.quiet);
  schedule(c);
}

// The header is looked at where it lies, and taken out when it is whole: what follows belongs to the connection.
void Streams::read_header(Connection& c) {
  uint8_t bytes[kProxyHeaderMax];
  const ssize_t got = recv(c.fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (got <= 0) return turn_away(c, Refusal::bad_header);
  const ProxyHeader header = parse_proxy_header({bytes, static_cast<size_t>(got)});
  if (header.status == ProxyHeader::Status::need_more && !c.peer_closing) return;
  if (header.status != ProxyHeader::Status::complete || recv(c.fd, bytes, header.len, MSG_DONTWAIT) != header.len)
    return turn_away(c, Refusal::bad_header);
  if (header.ip_version != 0) {
    c.peer = {std::bit_cast<Address>(header.source), header.source_port, header.ip_version};
    c.local = {std::bit_cast<Address>(header.destination), header.destination_port, header.ip_version};
  }
  c.readable = true;  // there may be more than the header already
  let_in(c);
}

// Nobody has heard of it yet.
void Streams::turn_away(Connection& c, Refusal reason) {
  leave_client(c);
  set_deadline(c, nullptr);
  unplace(c);
  c.service->awaited--;
  refuse(*c.service, reason, c.fd);
  c.fd = -1;
  c.state = ConnectionState::free;
  free_.push_back(&c);
}

// Gives a connection whose client is counted its chain instance; then it is open.
bool Streams::attach(Connection& c, Refusal& why) {
  Drop drop = Drop::no_rule;
  ChainInstance* instance = dispatcher_.admit(c.service->port, as_packet(c, dispatcher_.domain(c.service->port)), c.server_name,
                                              ++serial_, now_ns_, drop);
  if (instance == nullptr) {
    why = refusal_of(drop);
    return false;
  }
  const Entry& entry = instance->chain->spec().entries[c.service->port];
  c.stage = entry.stage;
  c.direction = entry.direction;
  c.in_port = entry.in_port;
  c.state = ConnectionState::open;
  bind_instance(c, *instance, instance->next_flow());
  return true;
}

bool Streams::join_client(Connection& c, Refusal& why) {
  if (c.peer.family == 0 && !c.is_udp) return true;  // Unix sockets have no addresses to tell clients by
  Service& service = *c.service;
  Service::Client& client = service.clients[client_of(c)];
  if (client.count >= service.listener.settings().max_per_client) {
    why = Refusal::max_per_client;
    if (!c.is_udp || client.flows.empty()) return false;
    lose(*client.flows.front(), Ending::displaced);
    return join_client(c, why);
  }
  client.count++;
  if (c.is_udp) client.flows.push_back(c);
  c.counted = true;
  return true;
}

void Streams::leave_client(Connection& c) {
  if (!c.counted) return;
  const auto client = c.service->clients.find(client_of(c));
  if (c.is_udp) client->second.flows.remove(c);
  if (--client->second.count == 0) c.service->clients.erase(client);
  c.counted = false;
}

// ---- Upstreams ----

void Streams::open_upstream(ChainInstance& instance, uint8_t stage, uint32_t flow, uint32_t place) {
  const std::vector<uint32_t>& connects = instance.chain->spec().stages[stage].pool->tmpl().grants().connects;
  const UpstreamSettings& to = upstreams_[connects[place]];
  Connection& c = new_connection();
  c.upstream = static_cast<uint16_t>(place + 1);
  c.is_udp = to.kind == ListenerKind::udp;
  c.stage = stage;
  c.direction = kUpstream;
  c.state = ConnectionState::connecting;
  bind_instance(c, instance, flow);
  set_deadline(c, &connecting_);
  const SocketAddress address = socket_address(to.address, to.port, to.kind == ListenerKind::unix_stream);
  c.peer = endpoint_from(address.storage);
  if (upstreams_open_ >= upstreams_max_) return lose(c, Ending::peer);
  c.fd = socket(address.storage.ss_family, (c.is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  upstreams_open_ += c.fd >= 0;
  if (c.fd < 0 || !watch(c.fd, connection_tag(&c), kWatched, EPOLL_CTL_ADD)) return lose(c, Ending::peer);
  if (to.kind == ListenerKind::tcp) set_no_delay(c.fd);
  if (connect(c.fd, address.get(), address.length) == 0) return finish_connect(c);
  if (errno != EINPROGRESS) lose(c, Ending::peer);
}

void Streams::finish_connect(Connection& c) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &length);
  sockaddr_storage peer{};
  socklen_t peer_length = sizeof peer;
  if (error != 0) return lose(c, Ending::peer);
  if (getpeername(c.fd, reinterpret_cast<sockaddr*>(&peer), &peer_length) != 0) return;  // an event before its time
  c.local = local_end(c.fd);
  c.state = ConnectionState::open;
  c.readable = true;
  set_deadline(c, nullptr);
  if (c.finishing) shut_writing(c);
  schedule(c);
}

}  // namespace edgeos
