// Any bytes as a capture file: the reader ends, within its views, with packets of at most the captured limit.
#include <fcntl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <stdexcept>

#include "../ports/descriptor.hpp"
#include "../ports/pcap_port.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const edgeos::Descriptor file(memfd_create("capture", MFD_CLOEXEC));
  if (write(file.get(), data, size) != static_cast<ssize_t>(size)) std::abort();
  uint64_t delivered = 0, sum = 0;
  try {
    edgeos::PcapPort port("fuzz", "/proc/self/fd/" + std::to_string(file.get()), "");
    edgeos::Packet out[4];
    while (const uint32_t count = port.receive(out, 4)) {
      for (uint32_t i = 0; i < count; i++) {
        if (out[i].len > 262144) std::abort();
        for (uint32_t byte = 0; byte < out[i].len; byte++) sum += out[i].data[byte];  // touched, for the sanitizers
        delivered++;
      }
    }
    if (!port.exhausted() || delivered != port.counters().received || sum > delivered * 262144 * 255) std::abort();
  } catch (const std::runtime_error&) {  // refused at open
  }
  return 0;
}
