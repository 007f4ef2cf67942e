#include "packet_sender.hpp"

#include <cerrno>
#include <cstring>

namespace edgeos {

PacketSender::PacketSender(int fd) : fd_(fd), bytes_(std::make_unique_for_overwrite<uint8_t[]>(kBytesMax)) {
  for (uint32_t i = 0; i < kPacketsMax; i++) {
    messages_[i].msg_hdr.msg_iov = &parts_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
  }
}

bool PacketSender::send(const uint8_t* data, uint32_t len) {
  const uint64_t bytes = uint64_t{len} + sizeof(VnetHeader);
  if (count_ == kPacketsMax || bytes > kBytesMax - used_) return false;
  uint8_t* at = bytes_.get() + used_;
  std::memset(at, 0, sizeof(VnetHeader));  // a complete packet
  if (len > 0) std::memcpy(at + sizeof(VnetHeader), data, len);
  parts_[count_++] = {at, bytes};
  used_ += static_cast<uint32_t>(bytes);
  return true;
}

int PacketSender::flush(PortCounters& counters) {
  uint32_t done = 0;
  int refused = 0;
  while (done < count_) {
    const int count = sendmmsg(fd_, &messages_[done], count_ - done, MSG_DONTWAIT);
    if (count > 0) {
      counters.sent += static_cast<uint32_t>(count);
      for (int i = 0; i < count; i++, done++) counters.sent_bytes += parts_[done].iov_len - sizeof(VnetHeader);
    } else if (errno == EAGAIN || errno == ENOBUFS) {
      break;
    } else if (errno != EINTR) {
      refused = errno;
      counters.send_dropped++;
      done++;
    }
  }
  retire(done);
  return refused;
}

// Moves what the device did not take yet to the front.
void PacketSender::retire(uint32_t done) {
  uint8_t* at = bytes_.get();
  for (uint32_t i = done; i < count_; i++) {
    const size_t bytes = parts_[i].iov_len;
    std::memmove(at, parts_[i].iov_base, bytes);
    parts_[i - done] = {at, bytes};
    at += bytes;
  }
  count_ -= done;
  used_ = static_cast<uint32_t>(at - bytes_.get());
}

}  // namespace edgeos
