// Any virtio header with any frame: packets within their buffers, no payload byte lost, and an end.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../ports/offload.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using edgeos::OffloadBurst;
  static OffloadBurst burst;
  if (size < 4) return 0;
  const uint16_t tpid = static_cast<uint16_t>(data[0] & 1 ? 0x8100 : 0);
  const uint32_t max = data[1] % 40u;
  const uint32_t bytes = static_cast<uint32_t>(std::min<size_t>(size - 2, OffloadBurst::kReadBytesMax));
  burst.begin(1);
  std::memcpy(burst.slot(3), data + 2, bytes);
  burst.add(3, bytes, tpid, 7);
  edgeos::PortCounters counters;
  edgeos::Packet out[40];
  uint64_t sum = 0;
  while (const uint32_t count = burst.take(out, max + 1, counters))
    for (uint32_t i = 0; i < count; i++)
      for (uint32_t byte = 0; byte < out[i].len; byte++) sum += out[i].data[byte];  // touched, for the sanitizers
  const uint64_t frame = bytes < sizeof(edgeos::VnetHeader) ? 0 : bytes - sizeof(edgeos::VnetHeader);
  if (!burst.empty() || counters.received_bytes < frame || sum > counters.received_bytes * 255) std::abort();
  return 0;
}
