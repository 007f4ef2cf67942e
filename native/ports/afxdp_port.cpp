#include "afxdp_port.hpp"

#include <linux/if_packet.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>

namespace edgeos {
namespace {

constexpr uint64_t kLookEveryNs = 1'000'000, kCountEveryNs = 10'000'000;
constexpr uint32_t kHeaderBytes = 14, kVlanTagBytes = 4;

// The device hands over packets for other machines too, for as long as this socket is open.
int open_promiscuous(const std::string& device, int interface, bool wanted) {
  if (!wanted) return -1;
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_errno(device, "cannot open a packet socket", "needs CAP_NET_RAW: run as root");
  packet_mreq membership{};
  membership.mr_ifindex = interface;
  membership.mr_type = PACKET_MR_PROMISC;
  if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  throw_errno(device, "cannot set promiscuous mode", "needs CAP_NET_RAW: run as root");
}

void listen_to(const std::string& device, int set, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
    throw_errno(device, "cannot wait for packets", "raise the limit of watches: `sysctl fs.epoll.max_user_watches`");
}

}  // namespace

AfXdpPort::AfXdpPort(std::string name, const std::string& device, std::shared_ptr<Umem> umem, int queue,
                     const std::vector<Rule>& take)
    : LivePort(std::move(name), device),
      interface_(find_interface(device)),
      umem_(std::move(umem)),
      promiscuous_(open_promiscuous(device, interface_.index, take.empty())),
      wait_fd_(epoll_create1(EPOLL_CLOEXEC)),
      watch_(device, interface_.index, interface_.mtu),
      intake_(device, interface_.index, umem_, {queue, take, std::nullopt, true}),
      sender_(intake_.sockets().front().get()) {
  const size_t count = intake_.sockets().size();
  mode_ = std::string(to_text(intake_.mode())) + (sender_->zero_copy() ? ", zero-copy, " : ", copy, ") +
          std::to_string(count) + (count == 1 ? " queue" : " queues");
  listen_to(device, wait_fd_.get(), watch_.fd());
}

// Whoever delivers a packet to a socket in an epoll set pays for it, some 0.15 us, whether or not anybody waits. So the
// sockets are in it only between the last receive() that found nothing and the next.
int AfXdpPort::wait_fd() const {
  if (!listening_ && !gone_) {
    for (const auto& socket : intake_.sockets()) listen_to(device_, wait_fd_.get(), socket->fd());
    listening_ = true;
  }
  return wait_fd_.get();
}

void AfXdpPort::stop_listening() {
  for (const auto& socket : intake_.sockets()) epoll_ctl(wait_fd_.get(), EPOLL_CTL_DEL, socket->fd(), nullptr);
  listening_ = false;
}

uint32_t AfXdpPort::receive(Packet* out, uint32_t max) {
  const uint64_t now_ns = wall_clock_ns();
  if (listening_) stop_listening();
  if (now_ns - looked_ns_ >= kLookEveryNs) look(now_ns);
  return gone_ ? 0 : intake_.receive(out, max, now_ns, counters_);
}

// True when the device would not take such a packet, which is then counted.
bool AfXdpPort::refuse(uint32_t len) {
  int error = 0;
  if (watch_.state() == LinkState::down) error = ENETDOWN;
  if (len > std::min(watch_.mtu() + kHeaderBytes + kVlanTagBytes, umem_->frame_bytes())) error = EMSGSIZE;
  if (len < kHeaderBytes) error = EINVAL;
  if (error == 0) return false;
  note_refused(error);
  counters_.send_dropped++;
  return true;
}

bool AfXdpPort::send(const uint8_t* data, uint32_t len, uint64_t) {
  return !gone_ && (refuse(len) || sender_->send(data, len));
}

void AfXdpPort::flush() {
  if (gone_) return;
  const XdpSent sent = sender_->flush();
  counters_.sent += sent.packets;
  counters_.sent_bytes += sent.bytes;
  counters_.send_dropped += sent.refused;
  if (sent.error == ENXIO || sent.error == ENETDOWN || sent.error == EBADF) looked_ns_ = 0;
  if (sent.refused > 0) note("the device refused packets to send: its queue is full, or the other end is down");
}

void AfXdpPort::look(uint64_t now_ns) {
  looked_ns_ = now_ns;
  watch_.look();
  if (watch_.state() == LinkState::gone) return go_silent();
  if (watch_.state() == LinkState::down) note("the interface is down");
  if (now_ns - counted_ns_ < kCountEveryNs) return;
  counted_ns_ = now_ns;
  counters_.receive_overrun += intake_.newly_lost();
}

// What is queued for a device that is gone will never be sent. In place of the sockets to wait for comes nothing.
void AfXdpPort::go_silent() {
  if (gone_) return;
  note("the device is gone");
  counters_.send_dropped += sender_->queued();
  gone_ = true;
  epoll_ctl(wait_fd_.get(), EPOLL_CTL_DEL, watch_.fd(), nullptr);
}

std::vector<XdpFrameCounts> AfXdpPort::frames() const {
  std::vector<XdpFrameCounts> all;
  for (const auto& socket : intake_.sockets()) all.push_back(socket->frames());
  return all;
}

}  // namespace edgeos
