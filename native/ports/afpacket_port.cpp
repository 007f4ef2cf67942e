#include "afpacket_port.hpp"

#include <fcntl.h>
#include <linux/if_ether.h>

#include <cstring>

#include "packet_socket.hpp"

namespace edgeos {
namespace {

constexpr uint64_t kStatisticsEveryNs = 10'000'000;

int own_or_copy(const std::string& device, int fd) {
  if (fd < 0) return open_packet_socket(device);
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw_errno(device, "cannot take over the packet socket", "raise the limit of open files, `ulimit -n`");
  return copy;
}

}  // namespace

AfPacketPort::AfPacketPort(std::string name, const std::string& device, const std::string& mode, int fd)
    : DevicePort(std::move(name), device, own_or_copy(device, fd)),
      sender_(fd_.get()) {
  mode_ = mode;
  for (uint32_t i = 0; i < OffloadBurst::kFramesMax; i++) {
    receive_parts_[i] = {burst_.slot(i), OffloadBurst::kReadBytesMax};
    receive_messages_[i].msg_hdr.msg_iov = &receive_parts_[i];
    receive_messages_[i].msg_hdr.msg_iovlen = 1;
    receive_messages_[i].msg_hdr.msg_control = receive_controls_[i].bytes.data();
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

void AfPacketPort::flush() {
  if (const int error = sender_.flush(counters_); error != 0) note_refused(error);
}

}  // namespace edgeos
