// An AF_XDP socket on one queue of a device, with the frames it owns: those for receiving are in the fill ring, with the
// kernel, in the receive ring or held by the reader; those for sending are free, or queued and not completed yet.
//
// Owner: an AfXdpPort; its data-plane thread. Law: frames taken = filled + held + free_to_send + sending, always.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "descriptor.hpp"
#include "umem.hpp"
#include "xdp_ring.hpp"

namespace edgeos {

struct XdpFrameCounts {
  uint32_t taken = 0, filled = 0, held = 0, free_to_send = 0, sending = 0;
};

// What the kernel has done with packets to send since it was last asked.
struct XdpSent {
  uint32_t packets = 0;
  uint64_t bytes = 0;
  uint32_t refused = 0;
  int error = 0;  // why packets stay queued or were refused
};

class XdpSocket {
 public:
  // Opens and binds; throws with the fix. `sends`: whether it has a send ring too.
  XdpSocket(const std::string& device, int interface, uint32_t queue, bool sends, std::shared_ptr<Umem> umem);
  ~XdpSocket();

  int fd() const { return fd_.get(); }
  bool zero_copy() const;
  XdpFrameCounts frames() const;
  uint64_t lost();  // packets that the kernel could not deliver, since the socket was opened

  // Gives the frames of the last call back to the kernel, and hands out up to `max` descriptors of packets.
  uint32_t receive(xdp_desc* out, uint32_t max);

  // False: no frame is free.
  bool send(const uint8_t* data, uint32_t len);
  // Hands over what was sent, as far as the device takes it.
  XdpSent flush();
  uint32_t queued() const { return send_queued_ - send_settled_; }

 private:
  void open_rings(bool sends);
  void fill();
  void complete();
  uint32_t settle(XdpSent& sent);

  const std::string device_;
  const std::shared_ptr<Umem> umem_;
  const Descriptor fd_;
  XdpRing<uint64_t> fill_, completion_;
  XdpRing<xdp_desc> receive_, send_;
  std::vector<uint64_t> taken_, held_, free_;
  uint32_t filled_ = 0, received_ = 0;                       // cursors of the fill and receive rings
  uint32_t send_queued_ = 0, send_settled_ = 0, completed_ = 0;  // of the send ring, twice, and the completion ring
  uint32_t refused_ = 0;  // by the device, and not settled yet
};

}  // namespace edgeos
