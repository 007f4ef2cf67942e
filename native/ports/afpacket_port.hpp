// An existing network interface, by a packet socket: the node receives all that arrives there and sends as if it were
// this machine's own.
//
// Manual: the interface must exist and be up, and should have no addresses, because the kernel's own stack sees the
// same packets. Frames carry virtio headers, so that TCP with default offloads passes; VLAN tags, which the kernel
// takes out, are put back. Owner: the worker's data-plane thread. receive_overrun counts what did not fit the socket's
// buffer or could not be described by a virtio header. Needs CAP_NET_RAW.
#pragma once

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <array>

#include "device_port.hpp"
#include "packet_sender.hpp"

namespace edgeos {

class AfPacketPort final : public DevicePort {
 public:
  // `mode`: why this port is used, if another was asked for. `fd`: a packet socket that somebody else has made and keeps, see
  // packet_socket.hpp; -1: one of its own.
  AfPacketPort(std::string name, const std::string& device, const std::string& mode = {}, int fd = -1);

  bool send(const uint8_t* data, uint32_t len, uint64_t) override { return sender_.send(data, len); }
  void flush() override;
  uint32_t queued() const override { return sender_.queued(); }

 private:
  struct Control {  // room for the one control message asked for
    alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
  };

  void fill_burst(uint32_t frames_max) override;
  void add_frame(uint32_t i);
  void read_statistics();

  std::array<iovec, OffloadBurst::kFramesMax> receive_parts_{};
  std::array<Control, OffloadBurst::kFramesMax> receive_controls_{};
  std::array<mmsghdr, OffloadBurst::kFramesMax> receive_messages_{};
  PacketSender sender_;
  uint64_t statistics_read_ns_ = 0;
};

}  // namespace edgeos
