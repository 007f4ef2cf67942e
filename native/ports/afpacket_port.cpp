#include "afpacket_port.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>

#include <cstring>

#ifndef PACKET_IGNORE_OUTGOING  // Linux 4.20; older headers do not name it
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_NET_RAW: run as root or in `unshare -Urn`";
// Holds some 7,000 packets of 1500 bytes, or 100 super-frames of 64 KiB, while the worker is busy elsewhere.
constexpr int kReceiveBufferBytes = 8 << 20;
constexpr int kSendBufferBytes = 4 << 20;
constexpr uint64_t kStatisticsEveryNs = 10'000'000;

int open_socket(const std::string& device) {
  // Protocol 0 receives nothing: packets of other interfaces must not slip in before bind(2).
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_errno(device, "cannot open a packet socket", kPrivilege);
  return fd;
}

template <typename Value>
void set_option(int fd, const std::string& device, int option, const Value& value, const char* what, const char* fix) {
  if (setsockopt(fd, SOL_PACKET, option, &value, sizeof value) < 0) throw_errno(device, what, fix);
}

// The kernel grants less without CAP_NET_ADMIN; less is slower under load, not wrong.
void enlarge(int fd, int forced, int polite, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, polite, &bytes, sizeof bytes);
}

}  // namespace

AfPacketPort::AfPacketPort(std::string name, const std::string& device, const std::string& mode)
    : DevicePort(std::move(name), device, open_socket(device)),
      send_bytes_(std::make_unique_for_overwrite<uint8_t[]>(kSendBytesMax)) {
  mode_ = mode;
  const int fd = fd_.get(), index = find_interface(device).index;
  set_option(fd, device, PACKET_IGNORE_OUTGOING, 1, "cannot ignore outgoing packets", "needs Linux 4.20 or later");
  set_option(fd, device, PACKET_VNET_HDR, 1, "cannot ask for virtio headers", "needs Linux 2.6.33 or later");
  set_option(fd, device, PACKET_AUXDATA, 1, "cannot ask for VLAN tags", "needs Linux 2.6.21 or later");
  enlarge(fd, SO_RCVBUFFORCE, SO_RCVBUF, kReceiveBufferBytes);
  enlarge(fd, SO_SNDBUFFORCE, SO_SNDBUF, kSendBufferBytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = index;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno(device, "cannot bind to the interface", "is it being removed?");
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = index;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  set_option(fd, device, PACKET_ADD_MEMBERSHIP, promiscuous, "cannot set promiscuous mode", kPrivilege);

  for (uint32_t i = 0; i < OffloadBurst::kFramesMax; i++) {
    receive_parts_[i] = {burst_.slot(i), OffloadBurst::kReadBytesMax};
    receive_messages_[i].msg_hdr.msg_iov = &receive_parts_[i];
    receive_messages_[i].msg_hdr.msg_iovlen = 1;
    receive_messages_[i].msg_hdr.msg_control = receive_controls_[i].bytes.data();
  }
  for (uint32_t i = 0; i < kSendPacketsMax; i++) {
    send_messages_[i].msg_hdr.msg_iov = &send_parts_[i];
    send_messages_[i].msg_hdr.msg_iovlen = 1;
  }
}

void AfPacketPort::fill_burst(uint32_t frames_max) {
  read_statistics();
  for (uint32_t i = 0; i < frames_max; i++) receive_messages_[i].msg_hdr.msg_controllen = sizeof(Control);
  const int count = recvmmsg(fd_.get(), receive_messages_.data(), frames_max, MSG_DONTWAIT, nullptr);
  for (int i = 0; i < count; i++) add_frame(static_cast<uint32_t>(i));
  if (count >= 0 || errno == EAGAIN || errno == EINTR) return;
  if (errno == EINVAL) {  // the kernel discards a super-frame that virtio headers cannot describe
    counters_.receive_overrun++;
    note("a super-frame of a kind that cannot be received was lost: turn that offload off with `ethtool -K`");
  } else {
    note("cannot receive: " + errno_text(errno));  // reported once per event, then the socket is silent
  }
}

void AfPacketPort::add_frame(uint32_t i) {
  msghdr& message = receive_messages_[i].msg_hdr;
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    counters_.receive_overrun++;
    note("a super-frame of over 64 KiB was lost: limit them with `ip link set " + device_ + " gso_max_size 65536`");
    return;
  }
  tpacket_auxdata extra{};
  const cmsghdr* control = CMSG_FIRSTHDR(&message);
  if (control != nullptr && control->cmsg_level == SOL_PACKET && control->cmsg_type == PACKET_AUXDATA)
    std::memcpy(&extra, CMSG_DATA(control), sizeof extra);
  uint16_t tpid = 0;
  if ((extra.tp_status & TP_STATUS_VLAN_VALID) != 0)
    tpid = (extra.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? extra.tp_vlan_tpid : uint16_t{ETH_P_8021Q};
  burst_.add(i, receive_messages_[i].msg_len, tpid, extra.tp_vlan_tci);
}

void AfPacketPort::read_statistics() {
  if (burst_.time_ns() - statistics_read_ns_ < kStatisticsEveryNs) return;
  statistics_read_ns_ = burst_.time_ns();
  tpacket_stats statistics{};
  socklen_t size = sizeof statistics;
  if (getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0)
    counters_.receive_overrun += statistics.tp_drops;  // since it was last read
}

bool AfPacketPort::send(const uint8_t* data, uint32_t len, uint64_t) {
  const uint64_t bytes = uint64_t{len} + sizeof(VnetHeader);
  if (send_count_ == kSendPacketsMax || bytes > kSendBytesMax - send_used_) return false;
  uint8_t* at = send_bytes_.get() + send_used_;
  std::memset(at, 0, sizeof(VnetHeader));  // a complete packet
  if (len > 0) std::memcpy(at + sizeof(VnetHeader), data, len);
  send_parts_[send_count_++] = {at, bytes};
  send_used_ += static_cast<uint32_t>(bytes);
  return true;
}

void AfPacketPort::flush() {
  uint32_t done = 0;
  while (done < send_count_) {
    const int count = sendmmsg(fd_.get(), &send_messages_[done], send_count_ - done, MSG_DONTWAIT);
    if (count > 0) {
      counters_.sent += static_cast<uint32_t>(count);
      for (int i = 0; i < count; i++, done++) counters_.sent_bytes += send_parts_[done].iov_len - sizeof(VnetHeader);
    } else if (errno == EAGAIN || errno == ENOBUFS) {
      break;
    } else if (errno != EINTR) {
      drop_refused();
      done++;
    }
  }
  retire_sent(done);
}

// Moves what the device did not take yet to the front.
void AfPacketPort::retire_sent(uint32_t done) {
  uint8_t* at = send_bytes_.get();
  for (uint32_t i = done; i < send_count_; i++) {
    const size_t bytes = send_parts_[i].iov_len;
    std::memmove(at, send_parts_[i].iov_base, bytes);
    send_parts_[i - done] = {at, bytes};
    at += bytes;
  }
  send_count_ -= done;
  send_used_ = static_cast<uint32_t>(at - send_bytes_.get());
}

}  // namespace edgeos
