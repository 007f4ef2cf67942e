#include "afxdp_port.hpp"

#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "bpf.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kLookEveryNs = 1'000'000, kCountEveryNs = 10'000'000;
constexpr uint32_t kHeaderBytes = 14, kVlanTagBytes = 4;
// What another process has attached goes with it, a little later.
constexpr int kAttachAttempts = 10;
constexpr std::chrono::milliseconds kAttachPause{10};

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

const char* attach_fix(int error) {
  if (error == EPERM || error == EACCES) return "needs CAP_NET_ADMIN, and not in a user namespace: run as root";
  if (error == EBUSY || error == EEXIST) return "another XDP program is attached: `ip link show` names it; stop its owner";
  if (error == EINVAL) return "AF_XDP needs Linux 5.10 or later: use kind = \"afpacket\"";
  return "this device takes no XDP program: use kind = \"afpacket\"";
}

int try_link(int program, int interface, uint32_t flags) {
  for (int attempt = 1;; attempt++) {
    const int fd = try_xdp_link(program, interface, flags);
    if (fd >= 0 || errno != EBUSY || attempt == kAttachAttempts) return fd;
    std::this_thread::sleep_for(kAttachPause);
  }
}

}  // namespace

AfXdpPort::AfXdpPort(std::string name, const std::string& device, std::shared_ptr<Umem> umem, int queue,
                     const std::vector<Rule>& take)
    : LivePort(std::move(name), device),
      interface_(find_interface(device)),
      umem_(std::move(umem)),
      promiscuous_(open_promiscuous(device, interface_.index, take.empty())),
      wait_fd_(epoll_create1(EPOLL_CLOEXEC)),
      watch_(device, interface_.index, interface_.mtu) {
  open_sockets(queue);
  attach(take);
  listen();
}

void AfXdpPort::open_sockets(int queue) {
  const QueueCounts counts = count_queues(device_);
  if (queue >= static_cast<int>(counts.receive))
    throw std::runtime_error(device_ + ": there is no queue " + std::to_string(queue) + " (it has " +
                             std::to_string(counts.receive) + ", counted from 0: `ethtool -l " + device_ + "`)");
  map_ = std::make_unique<Descriptor>(make_socket_map(device_, counts.receive));
  const uint32_t first = queue < 0 ? 0 : static_cast<uint32_t>(queue);
  const uint32_t last = queue < 0 ? counts.receive - 1 : first;
  for (uint32_t i = first; i <= last; i++) {
    sockets_.push_back(std::make_unique<XdpSocket>(device_, interface_.index, i, i == first, umem_));
    set_map_socket(device_, map_->get(), i, sockets_.back()->fd());
  }
  sender_ = sockets_.front().get();
  lost_.resize(sockets_.size());
}

void AfXdpPort::attach(const std::vector<Rule>& take) {
  program_ = std::make_unique<Descriptor>(load_xdp_program(device_, make_xdp_program(take, map_->get())));
  const char* how = "native";
  int fd = try_link(program_->get(), interface_.index, XDP_FLAGS_DRV_MODE);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == ERANGE || errno == EINVAL)) {
    how = "generic";
    fd = try_link(program_->get(), interface_.index, XDP_FLAGS_SKB_MODE);
  }
  if (fd < 0) throw_errno(device_, "cannot attach the XDP program", attach_fix(errno));
  link_ = std::make_unique<Descriptor>(fd);
  const size_t count = sockets_.size();
  mode_ = std::string(how) + (sender_->zero_copy() ? ", zero-copy, " : ", copy, ") + std::to_string(count) +
          (count == 1 ? " queue" : " queues");
}

void AfXdpPort::listen() {
  const auto add = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(wait_fd_.get(), EPOLL_CTL_ADD, fd, &event) < 0)
      throw_errno(device_, "cannot wait for packets", "raise the limit of open files: `ulimit -n`");
  };
  for (const auto& socket : sockets_) add(socket->fd());
  add(watch_.fd());
}

uint32_t AfXdpPort::receive(Packet* out, uint32_t max) {
  const uint64_t now_ns = wall_clock_ns();
  if (now_ns - looked_ns_ >= kLookEveryNs) look(now_ns);
  if (gone_) return 0;
  if (received_.size() < max) received_.resize(max);
  uint32_t count = 0;
  for (size_t i = 0; i < sockets_.size(); i++) {
    XdpSocket& socket = *sockets_[(next_socket_ + i) % sockets_.size()];
    const uint32_t end = count + socket.receive(received_.data() + count, max - count);
    for (; count < end; count++) {
      const xdp_desc& descriptor = received_[count];
      uint8_t* data = umem_->at(descriptor.addr);
      complete_checksum(data, descriptor.len);
      out[count] = {data, descriptor.len, now_ns};
      counters_.received_bytes += descriptor.len;
    }
  }
  next_socket_ = (next_socket_ + 1) % sockets_.size();
  counters_.received += count;
  return count;
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
  for (size_t i = 0; i < sockets_.size(); i++) {
    const uint64_t lost = sockets_[i]->lost();
    counters_.receive_overrun += lost - lost_[i];
    lost_[i] = lost;
  }
}

// What is queued for a device that is gone will never be sent. In place of the sockets to wait for comes nothing.
void AfXdpPort::go_silent() {
  if (gone_) return;
  note("the device is gone");
  counters_.send_dropped += sender_->queued();
  gone_ = true;
  for (const auto& socket : sockets_) epoll_ctl(wait_fd_.get(), EPOLL_CTL_DEL, socket->fd(), nullptr);
  epoll_ctl(wait_fd_.get(), EPOLL_CTL_DEL, watch_.fd(), nullptr);
}

std::vector<XdpFrameCounts> AfXdpPort::frames() const {
  std::vector<XdpFrameCounts> all;
  for (const auto& socket : sockets_) all.push_back(socket->frames());
  return all;
}

}  // namespace edgeos
