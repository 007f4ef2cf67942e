// The packet memory that the AF_XDP sockets of a node share with the kernel (UMEM): equal frames, each either free here or
// owned by one socket, which gives all of its frames back.
//
// Owner: the ports that were opened with it, by shared_ptr; set-up and the data-plane thread, no locks. The kernel counts
// the memory as locked: without CAP_IPC_LOCK it is bounded by `ulimit -l`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace edgeos {

class Umem {
 public:
  static constexpr uint32_t kReceiveFrames = 2048;  // of each queue; a power of two, as rings have entries
  static constexpr uint32_t kSendFrames = 1024;     // of each port
  static constexpr uint32_t kHeadroom = 256;        // of each frame, which the kernel keeps when it receives

  struct Size {
    uint32_t frames;
    uint32_t frame_bytes;
    size_t bytes() const { return size_t{frames} * frame_bytes; }
  };
  // What the memory for these devices takes, which is locked.
  static Size size_for(const std::vector<std::pair<std::string, int>>& devices);

  // To receive by one queue what a device with that MTU has received.
  static Size size_to_receive(const std::string& device, uint32_t mtu);

  explicit Umem(const Size& size);
  // For these devices, each with a queue or -1 for all its queues. Throws when one cannot be had, or its MTU is too large.
  explicit Umem(const std::vector<std::pair<std::string, int>>& devices) : Umem(size_for(devices)) {}
  ~Umem();
  Umem(const Umem&) = delete;
  Umem& operator=(const Umem&) = delete;

  uint8_t* at(uint64_t address) const { return memory_ + address; }
  uint64_t frame_of(uint64_t address) const { return address & ~uint64_t{frame_bytes_ - 1}; }
  uint32_t frame_bytes() const { return frame_bytes_; }
  uint32_t frames() const { return frames_; }
  uint32_t free_frames() const { return static_cast<uint32_t>(free_.size()); }

  // Throws std::runtime_error when fewer are free: the memory was made for other devices.
  std::vector<uint64_t> take(uint32_t count);
  void give_back(const std::vector<uint64_t>& frames);

  // Registers the memory for a socket that is about to be bound; or gives one that is bound, to share the memory with.
  int join(const std::string& device, int socket);
  void bound(int socket) { sockets_.push_back(socket); }
  void leave(int socket) { std::erase(sockets_, socket); }

 private:
  uint8_t* memory_ = nullptr;
  uint32_t frames_ = 0, frame_bytes_ = 0;
  std::vector<uint64_t> free_;
  std::vector<int> sockets_;
};

}  // namespace edgeos
