#include "network_space.hpp"

#include <fcntl.h>
#include <sched.h>

#include <exception>
#include <thread>

namespace edgeos {
namespace {

constexpr const char* kPrivilege = "needs CAP_SYS_ADMIN, and under systemd RestrictNamespaces=net: run as root";

void in_thread(const std::function<void()>& work) {
  std::exception_ptr thrown;
  std::thread thread([&] {
    try {
      work();
    } catch (...) {
      thrown = std::current_exception();
    }
  });
  thread.join();
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace

Descriptor make_space(const std::string& device, const std::function<void()>& work) {
  int space = -1;
  in_thread([&] {
    if (unshare(CLONE_NEWNET) < 0) throw_errno(device, "cannot make a network namespace", kPrivilege);
    Descriptor made(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (made.get() < 0) throw_errno(device, "cannot open a network namespace", "is /proc mounted?");
    work();
    space = made.release();
  });
  return Descriptor(space);
}

void in_space(const std::string& device, int space, const std::function<void()>& work) {
  in_thread([&] {
    if (setns(space, CLONE_NEWNET) < 0) throw_errno(device, "cannot enter a network namespace", kPrivilege);
    work();
  });
}

}  // namespace edgeos
