// Datagrams, both ways: flows between two ends that become connections without a socket of their own, and what they are sent.
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

#include "stream_parts.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kDatagramMax = 65536;

}  // namespace

struct Streams::DatagramBuffers {
  struct Control {
    alignas(cmsghdr) uint8_t bytes[64];
  };
  mmsghdr headers[kDatagramBurst];
  iovec pieces[kDatagramBurst];
  sockaddr_storage names[kDatagramBurst];
  Control controls[kDatagramBurst];
  std::unique_ptr<uint8_t[]> bytes = std::make_unique_for_overwrite<uint8_t[]>(size_t{kDatagramBurst} * kDatagramMax);
  void prepare() {
    for (uint32_t i = 0; i < kDatagramBurst; i++) {
      pieces[i] = {bytes.get() + size_t{i} * kDatagramMax, kDatagramMax};
      headers[i].msg_hdr = {&names[i], sizeof names[i], &pieces[i], 1, controls[i].bytes, sizeof controls[i].bytes, 0};
    }
  }
};

void Streams::DatagramDeleter::operator()(DatagramBuffers* buffers) const { delete buffers; }

void Streams::prepare_datagrams() {
  if (datagrams_ == nullptr) datagrams_.reset(new DatagramBuffers);
}

void Streams::receive_datagrams(Service& service) {
  DatagramBuffers& buffers = *datagrams_;
  buffers.prepare();
  const int count = recvmmsg(service.listener.fd(), buffers.headers, kDatagramBurst, MSG_DONTWAIT, nullptr);
  PortCounters& traffic = service.listener.traffic();
  for (int i = 0; i < count; i++) {
    const msghdr& header = buffers.headers[i].msg_hdr;
    Connection* c = find_flow(service, endpoint_from(buffers.names[i]), local_of(header, service.listener));
    if (c == nullptr) continue;
    const uint32_t len = buffers.headers[i].msg_len;
    ChainInstance& instance = *c->instance;
    Chain& chain = *instance.chain;
    touch(*c);
    if (Drop why{}; instance.tenant != nullptr && !instance.tenant->admits(now_ns_, why)) {
      instance.tenant->refuse(why);
      drop_datagram(chain, why, traffic, len);
    } else if (!has_room(instance) || !tell_news(*c) || !has_room(instance)) {
      drop_datagram(chain, Drop::ring_full, traffic, len);
    } else if (Fwp* fwp = chain.fwp(instance, c->stage); fwp == nullptr) {
      drop_datagram(chain, Chain::why_no_fwp(instance), traffic, len);
    } else if (len > fwp->slot_size) {
      drop_datagram(chain, Drop::oversize, traffic, len);
    } else {
      std::memcpy(fwp->slot(fwp->ring.index(fwp->ring.tail)), buffers.pieces[i].iov_base, len);
      push(*fwp, *c, MessageKind::datagram, len, c->stage);
      chain.touch(instance, now_ns_);
    }
  }
}

// Beyond what the instance has yet to hear of flows that are gone: else a client whose flows take each other's place faster
// than its guest can be told would make more and more of them be remembered.
bool Streams::has_room(const ChainInstance& instance) {
  return instance.chain->entry_room(instance) > instance.streams.untold;
}

void Streams::drop_datagram(Chain& chain, Drop why, PortCounters& traffic, uint32_t len) {
  traffic.received++;
  traffic.received_bytes += len;
  received_++;
  chain.counters.received++;
  chain.counters.dropped[size_t(why)]++;
}

// The address that a datagram was sent to, which is where the answer must come from.
Endpoint Streams::local_of(const msghdr& header, const Listener& listener) {
  Endpoint local;
  for (const cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&header), const_cast<cmsghdr*>(c))) {
    sockaddr_storage storage{};
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      sockaddr_in four{};
      four.sin_family = AF_INET;
      four.sin_addr = info.ipi_addr;
      std::memcpy(&storage, &four, sizeof four);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      sockaddr_in6 six{};
      six.sin6_family = AF_INET6;
      six.sin6_addr = info.ipi6_addr;
      std::memcpy(&storage, &six, sizeof six);
    } else {
      continue;
    }
    local = endpoint_from(storage);
  }
  local.port = listener.port_number();
  return local;
}

// The flow of these two ends; a new one takes the place of the longest silent when there are too many.
Connection* Streams::find_flow(Service& service, const Endpoint& peer, const Endpoint& local) {
  const auto found = service.flows.find({peer, local});
  if (found != service.flows.end()) return found->second;
  ConnectionCounters& counters = service.listener.connections;
  if (service.stopped) {
    refuse(service, Refusal::stopping, -1);
    return nullptr;
  }
  if (!service.listener.within_rate(now_ns_)) {
    refuse(service, Refusal::accept_rate, -1);
    return nullptr;
  }
  const uint32_t most = service.listener.settings().max_connections;
  if (counters.connections >= most && service.quiet.list.empty()) {
    refuse(service, Refusal::max_connections, -1);
    return nullptr;
  }
  Connection& c = new_connection();
  c.is_udp = true;
  c.service = &service;
  c.peer = peer;
  c.local = local;
  Refusal why = Refusal::no_rule;
  if (!join_client(c, why) || !attach(c, why)) {
    leave_client(c);
    refuse(service, why, -1);
    free_.push_back(&c);
    return nullptr;
  }
  // Only now: nobody gives way to one that is turned away.
  if (counters.connections >= most) lose(*service.quiet.list.front(), Ending::displaced);
  counters.accepted++;
  counters.connections++;
  service.flows.emplace(std::pair{peer, local}, &c);
  set_deadline(c, &service.quiet);
  return &c;
}

// ---- Towards the peer ----

// What the network does not take at once is lost, as datagrams may be.
bool Streams::write_datagrams(Connection& c, const iovec* pieces, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    ssize_t sent;
    if (c.service == nullptr) {
      sent = send(c.fd, pieces[i].iov_base, pieces[i].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
      sent = send_datagram(c, pieces[i]);
      PortCounters& traffic = c.service->listener.traffic();
      sent < 0 ? traffic.send_dropped++ : traffic.sent++;
      if (sent > 0) traffic.sent_bytes += static_cast<uint64_t>(sent);
    }
    if (sent >= 0) touch(c);
  }
  return true;
}

ssize_t Streams::send_datagram(const Connection& c, const iovec& piece) {
  const Listener& listener = c.service->listener;
  SocketAddress peer = socket_address(c.peer, listener.family());
  const SocketAddress local = socket_address(c.local, listener.family());
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(in6_pktinfo))] = {};
  msghdr message{};
  message.msg_name = &peer.storage;
  message.msg_namelen = peer.length;
  message.msg_iov = const_cast<iovec*>(&piece);
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (listener.family() == AF_INET) {
    in_pktinfo info{};
    info.ipi_spec_dst = reinterpret_cast<const sockaddr_in*>(local.get())->sin_addr;
    head->cmsg_level = IPPROTO_IP;
    head->cmsg_type = IP_PKTINFO;
    head->cmsg_len = CMSG_LEN(sizeof info);
    message.msg_controllen = CMSG_SPACE(sizeof info);
    std::memcpy(CMSG_DATA(head), &info, sizeof info);
  } else {
    in6_pktinfo info{};
    info.ipi6_addr = reinterpret_cast<const sockaddr_in6*>(local.get())->sin6_addr;
    head->cmsg_level = IPPROTO_IPV6;
    head->cmsg_type = IPV6_PKTINFO;
    head->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(head), &info, sizeof info);
  }
  return sendmsg(listener.fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace edgeos
