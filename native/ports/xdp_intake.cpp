#include "xdp_intake.hpp"

#include "bpf.hpp"
#include "interface.hpp"
#include "offload.hpp"

namespace edgeos {

XdpIntake::XdpIntake(const std::string& device, int interface, std::shared_ptr<Umem> umem, const Options& options)
    : device_(device), umem_(std::move(umem)) {
  open_sockets(interface, options);
  program_ = std::make_unique<Descriptor>(load_xdp_program(device_, make_xdp_program(options.take, map_->get())));
  link_ = std::make_unique<XdpLink>(options.mode
                                        ? XdpLink{attach_xdp(device_, interface, program_->get(), *options.mode), *options.mode}
                                        : attach_xdp(device_, interface, program_->get()));
}

void XdpIntake::open_sockets(int interface, const Options& options) {
  const QueueCounts counts = count_queues(device_);
  if (options.queue >= static_cast<int>(counts.receive)) throw_no_queue(device_, options.queue, counts.receive);
  map_ = std::make_unique<Descriptor>(make_socket_map(device_, counts.receive));
  const uint32_t first = options.queue < 0 ? 0 : static_cast<uint32_t>(options.queue);
  const uint32_t last = options.queue < 0 ? counts.receive - 1 : first;
  for (uint32_t i = first; i <= last; i++) {
    sockets_.push_back(std::make_unique<XdpSocket>(device_, interface, i, options.sends && i == first, umem_));
    set_map_socket(device_, map_->get(), i, sockets_.back()->fd());
  }
}

uint32_t XdpIntake::receive(Packet* out, uint32_t max, uint64_t now_ns, PortCounters& counters) {
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
      counters.received_bytes += descriptor.len;
    }
  }
  next_socket_ = (next_socket_ + 1) % sockets_.size();
  counters.received += count;
  return count;
}

uint64_t XdpIntake::newly_lost() {
  uint64_t lost = 0;
  for (const auto& socket : sockets_) lost += socket->lost();
  return lost - std::exchange(lost_, lost);
}

}  // namespace edgeos
