#include "xdp_socket.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <thread>

#ifndef XDP_MAX_TX_SKB_BUDGET  // Linux 6.17; older headers do not name it
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

namespace edgeos {
namespace {

constexpr int kSendBufferBytes = 8 << 20;
constexpr int kSendBudget = 256;  // packets of one system call; 32 unless the kernel can be told
// A queue is free again some 70 ms after its last socket was closed.
constexpr int kBindAttempts = 30;
constexpr std::chrono::milliseconds kBindPause{10};
constexpr uint32_t kSendEntriesMin = 2;

int open_socket(const std::string& device) {
  const int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd >= 0) return fd;
  const bool missing = errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT;
  throw_errno(device, "cannot open an AF_XDP socket",
              missing ? "this kernel has none (CONFIG_XDP_SOCKETS): use kind = \"afpacket\"" : "needs CAP_NET_RAW: run as root");
}

const char* bind_fix(int error) {
  if (error == EBUSY) return "another socket uses this queue: stop that program or choose another queue";
  if (error == EINVAL) return "is there such a queue? `ethtool -l` shows them";
  return "needs CAP_NET_RAW: run as root";
}

}  // namespace

XdpSocket::XdpSocket(const std::string& device, int interface, uint32_t queue, bool sends, std::shared_ptr<Umem> umem)
    : device_(device), umem_(std::move(umem)), fd_(open_socket(device)) {
  const int shared = umem_->join(device, fd());
  open_rings(sends);
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = static_cast<uint32_t>(interface);
  address.sxdp_queue_id = queue;
  address.sxdp_flags = shared < 0 ? XDP_USE_NEED_WAKEUP : XDP_SHARED_UMEM;  // a sharing socket has the first one's way
  address.sxdp_shared_umem_fd = shared < 0 ? 0 : static_cast<uint32_t>(shared);
  for (int attempt = 1; bind(fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0; attempt++) {
    if (errno != EBUSY || attempt == kBindAttempts)
      throw_errno(device, "cannot bind to queue " + std::to_string(queue), bind_fix(errno));
    std::this_thread::sleep_for(kBindPause);
  }
  taken_ = umem_->take(Umem::kReceiveFrames + (sends ? Umem::kSendFrames : 0));
  umem_->bound(fd());
  held_.assign(taken_.begin(), taken_.begin() + Umem::kReceiveFrames);
  free_.assign(taken_.begin() + Umem::kReceiveFrames, taken_.end());
  fill();
}

XdpSocket::~XdpSocket() {
  umem_->leave(fd());
  umem_->give_back(taken_);
}

void XdpSocket::open_rings(bool sends) {
  const uint32_t receive = Umem::kReceiveFrames, send = sends ? Umem::kSendFrames : kSendEntriesMin;
  const auto set = [&](int option, uint32_t entries) {
    if (setsockopt(fd(), SOL_XDP, option, &entries, sizeof entries) < 0)
      throw_errno(device_, "cannot set up a ring", "raise the limit of locked memory: `ulimit -l`");
  };
  set(XDP_UMEM_FILL_RING, receive);
  set(XDP_UMEM_COMPLETION_RING, send);
  set(XDP_RX_RING, receive);
  if (sends) set(XDP_TX_RING, send);
  xdp_mmap_offsets offsets{};
  socklen_t size = sizeof offsets;
  if (getsockopt(fd(), SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) < 0 || size != sizeof offsets)
    throw_errno(device_, "cannot find the rings", "AF_XDP needs Linux 5.10 or later");
  if (!fill_.map(fd(), offsets.fr, receive, XDP_UMEM_PGOFF_FILL_RING) ||
      !completion_.map(fd(), offsets.cr, send, XDP_UMEM_PGOFF_COMPLETION_RING) ||
      !receive_.map(fd(), offsets.rx, receive, XDP_PGOFF_RX_RING) ||
      (sends && !send_.map(fd(), offsets.tx, send, XDP_PGOFF_TX_RING)))
    throw_errno(device_, "cannot map a ring", "is there memory left?");
  if (!sends) return;
  // Both are for speed only; the kernel grants less without CAP_NET_ADMIN, or does not know the second.
  setsockopt(fd(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof kSendBufferBytes);
  setsockopt(fd(), SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &kSendBudget, sizeof kSendBudget);
}

bool XdpSocket::zero_copy() const {
  xdp_options options{};
  socklen_t size = sizeof options;
  return getsockopt(fd(), SOL_XDP, XDP_OPTIONS, &options, &size) == 0 && (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
}

XdpFrameCounts XdpSocket::frames() const {
  return {static_cast<uint32_t>(taken_.size()), filled_ - received_, static_cast<uint32_t>(held_.size()),
          static_cast<uint32_t>(free_.size()), send_queued_ - completed_};
}

uint64_t XdpSocket::lost() {
  xdp_statistics statistics{};
  socklen_t size = sizeof statistics;
  if (getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &statistics, &size) < 0) return 0;
  return statistics.rx_dropped + statistics.rx_ring_full;
}

// There is always room: the ring has an entry for each frame that is for receiving.
void XdpSocket::fill() {
  if (!held_.empty()) {
    for (const uint64_t frame : held_) fill_[filled_++] = frame;
    held_.clear();
    fill_.produce(filled_);
  }
  if (fill_.needs_wakeup()) recvfrom(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

uint32_t XdpSocket::receive(xdp_desc* out, uint32_t max) {
  fill();
  const uint32_t count = std::min(receive_.produced() - received_, max);
  for (uint32_t i = 0; i < count; i++) {
    out[i] = receive_[received_ + i];
    held_.push_back(umem_->frame_of(out[i].addr));
  }
  if (count > 0) receive_.consume(received_ += count);
  return count;
}

bool XdpSocket::send(const uint8_t* data, uint32_t len) {
  if (free_.empty()) complete();
  if (free_.empty()) return false;
  const uint64_t frame = free_.back();
  free_.pop_back();
  std::memcpy(umem_->at(frame), data, len);
  send_[send_queued_++] = {frame, len, 0};
  return true;
}

void XdpSocket::complete() {
  const uint32_t produced = completion_.produced();
  while (completed_ != produced) free_.push_back(umem_->frame_of(completion_[completed_++]));
  completion_.consume(completed_);
}

// What the kernel has taken from the send ring since the last time. Those refused were the last of it.
uint32_t XdpSocket::settle(XdpSent& sent) {
  const uint32_t taken = send_.consumed() - send_settled_, refused = std::min(taken, refused_);
  for (uint32_t i = 0; i < taken - refused; i++) sent.bytes += send_[send_settled_ + i].len;
  sent.packets += taken - refused;
  sent.refused += refused;
  refused_ -= refused;
  send_settled_ += taken;
  return taken;
}

XdpSent XdpSocket::flush() {
  XdpSent sent;
  if (queued() == 0) return sent;
  send_.produce(send_queued_);
  settle(sent);
  while (queued() > 0 && send_.needs_wakeup()) {
    const int error = sendto(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 ? errno : 0;
    // The device dropped one packet, though the ring may show that only after the next call.
    const bool refused = error == EBUSY && refused_ < queued();
    if (refused) refused_++;
    if (error != 0 && error != EAGAIN) sent.error = error;
    if (settle(sent) == 0 && !refused) break;
  }
  complete();
  return sent;
}

}  // namespace edgeos
