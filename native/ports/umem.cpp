#include "umem.hpp"

#include <linux/if_xdp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>

#include "descriptor.hpp"
#include "interface.hpp"

namespace edgeos {
namespace {

constexpr uint32_t kFrameBytesUsual = 2048, kFrameBytesMax = 4096;  // at most a page
constexpr uint32_t kLinkHeaderMax = 14 + 2 * 4;                     // Ethernet with two VLAN tags

// The smallest frames into which the device's packets fit.
uint32_t frame_bytes_for(const std::string& device, uint32_t mtu) {
  const uint32_t needed = mtu + kLinkHeaderMax + Umem::kHeadroom;
  if (needed <= kFrameBytesUsual) return kFrameBytesUsual;
  if (needed <= kFrameBytesMax) return kFrameBytesMax;
  const std::string most = std::to_string(kFrameBytesMax - kLinkHeaderMax - Umem::kHeadroom);
  throw std::system_error(ERANGE, std::generic_category(),
                          device + ": AF_XDP cannot take packets of MTU " + std::to_string(mtu) +
                              " (at most " + most + ": `ip link set " + device + " mtu 1500`, or use kind = \"afpacket\")");
}

}  // namespace

Umem::Size Umem::size_for(const std::vector<std::pair<std::string, int>>& devices) {
  Size size{0, 0};
  for (const auto& [device, queue] : devices) {
    const Interface interface = find_interface(device);
    size.frame_bytes = std::max(size.frame_bytes, frame_bytes_for(device, interface.mtu));
    size.frames += kSendFrames + kReceiveFrames * (queue < 0 ? count_queues(device).receive : 1);
  }
  return size;
}

Umem::Size Umem::size_to_receive(const std::string& device, uint32_t mtu) {
  return {kReceiveFrames, frame_bytes_for(device, mtu)};
}

Umem::Umem(const Size& size) : frames_(size.frames), frame_bytes_(size.frame_bytes) {
  const size_t bytes = size.bytes();
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) throw_errno("AF_XDP", "cannot allocate " + std::to_string(bytes >> 20) + " MiB", "use fewer queues");
  memory_ = static_cast<uint8_t*>(memory);
  free_.reserve(frames_);
  for (uint32_t i = frames_; i > 0; i--) free_.push_back(uint64_t{i - 1} * frame_bytes_);
}

Umem::~Umem() { munmap(memory_, size_t{frames_} * frame_bytes_); }

std::vector<uint64_t> Umem::take(uint32_t count) {
  if (count > free_.size()) throw std::runtime_error("AF_XDP: this memory has no room for another queue");
  std::vector<uint64_t> taken(free_.end() - count, free_.end());
  free_.resize(free_.size() - count);
  return taken;
}

void Umem::give_back(const std::vector<uint64_t>& frames) { free_.insert(free_.end(), frames.begin(), frames.end()); }

int Umem::join(const std::string& device, int socket) {
  if (!sockets_.empty()) return sockets_.front();
  xdp_umem_reg registration{};
  registration.addr = reinterpret_cast<uint64_t>(memory_);
  registration.len = uint64_t{frames_} * frame_bytes_;
  registration.chunk_size = frame_bytes_;
  if (setsockopt(socket, SOL_XDP, XDP_UMEM_REG, &registration, sizeof registration) < 0) {
    const std::string mib = std::to_string(registration.len >> 20);
    throw_errno(device, "cannot register " + mib + " MiB of packet memory",
                "locked memory is limited: `ulimit -l unlimited`, or grant CAP_IPC_LOCK");
  }
  return -1;
}

}  // namespace edgeos
