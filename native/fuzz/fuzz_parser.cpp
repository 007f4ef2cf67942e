// Any bytes as a frame: the parser ends, reads only inside the frame and agrees with its own
// short cut.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../kernel/packet_parser.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 65536) return 0;
  const std::vector<uint8_t> frame(data, data + size);  // its own allocation: a read beyond it is noticed
  const auto len = static_cast<uint32_t>(size);
  edgeos::ParsedPacket parsed;
  edgeos::FlowKey key;
  bool first_fragment = false;
  const bool valid = edgeos::parse_packet(frame.data(), len, 3, parsed);
  if (valid != (size >= 14) || valid != edgeos::parse_key(frame.data(), len, 3, key, first_fragment)) std::abort();
  if (!valid) return 0;
  if (!(key == parsed.key) || first_fragment != (parsed.fragment && !parsed.later_fragment)) std::abort();
  if (key.domain() != 3 || (key.kind() != edgeos::KeyKind::flow && key.kind() != edgeos::KeyKind::fragment)) std::abort();
  if ((key.kind() == edgeos::KeyKind::fragment) != parsed.later_fragment) std::abort();
  if (parsed.fragment && edgeos::fragment_key(parsed).kind() != edgeos::KeyKind::fragment) std::abort();
  return 0;
}
