// A file descriptor that closes itself, and errors that say what was tried on what, and the fix.
//
// Owner: the port that holds it; no locks, no counters.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

namespace edgeos {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  // It is the caller's to close.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

inline std::string errno_text(int error) { return std::generic_category().message(error); }

// Throws errno as "SUBJECT: WHAT (FIX): No such device".
[[noreturn]] inline void throw_errno(const std::string& subject, const std::string& what, const std::string& fix) {
  throw std::system_error(errno, std::generic_category(), subject + ": " + what + " (" + fix + ")");
}

}  // namespace edgeos
