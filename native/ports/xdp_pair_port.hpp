// An AF_XDP port as one of several workers has it: an existing network interface of whose packets some clients' come to this
// worker, through its pair of devices (xdp_pairs.hpp). It sends by a packet socket on the interface itself.
//
// Manual: as that of an AF_XDP port (afxdp_port.hpp) but that zero-copy cannot be. Owner: the worker's data-plane thread.
// receive_overrun counts what the pair or the socket could not take since the port was opened.
#pragma once

#include <memory>

#include "device_port.hpp"
#include "link_watch.hpp"
#include "packet_sender.hpp"
#include "route_socket.hpp"
#include "xdp_intake.hpp"

namespace edgeos {

class XdpPairPort final : public LivePort {
 public:
  // `space`: the namespace of the worker's pair, which somebody keeps. `everything`: packets for other machines too.
  XdpPairPort(std::string name, const std::string& device, int space, bool everything);

  uint32_t receive(Packet* out, uint32_t max) override;
  bool send(const uint8_t* data, uint32_t len, uint64_t) override { return sender_.send(data, len); }
  void flush() override;
  uint32_t queued() const override { return sender_.queued(); }
  int wait_fd() const override { return wait_fd_.get(); }

  XdpFrameCounts frames() const { return intake_->sockets().front()->frames(); }

 private:
  void open_pair(XdpMode mode);
  void listen();
  void look(uint64_t now_ns);

  const Interface interface_;
  const Descriptor sending_, wait_fd_;
  PacketSender sender_;
  LinkWatch watch_;
  std::shared_ptr<Umem> umem_;
  std::unique_ptr<RouteSocket> pair_;  // asks about the pair, in whose namespace it is
  int entry_ = 0;
  std::unique_ptr<XdpIntake> intake_;
  uint64_t looked_ns_ = 0, counted_ns_ = 0;
  uint64_t dropped_ = 0;  // by the pair, when last asked
};

}  // namespace edgeos
