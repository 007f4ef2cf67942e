// Any bytes as the start of a connection: the parser ends, reads only what is there, asks for more than there is or gives an
// answer, and says the same whatever follows.
#include <cstdlib>
#include <vector>

#include "../ports/client_hello.hpp"

using edgeos::ClientHello;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 20000) return 0;
  const std::vector<uint8_t> bytes(data, data + size);  // its own allocation: a read beyond it is noticed
  const ClientHello hello = edgeos::parse_client_hello(bytes);
  if (hello.status == ClientHello::Status::need_more && (hello.needed <= size || hello.needed > edgeos::kClientHelloMax)) std::abort();
  if (hello.server_name.size() > edgeos::kServerNameMax) std::abort();
  for (const char c : hello.server_name)
    if (c <= ' ' || c > 'z' || (c >= 'A' && c <= 'Z')) std::abort();
  if (hello.status == ClientHello::Status::need_more) return 0;
  std::vector<uint8_t> longer = bytes;
  longer.resize(longer.size() + 100, 0x16);
  const ClientHello again = edgeos::parse_client_hello(longer);
  if (again.status != hello.status || again.server_name != hello.server_name) std::abort();
  return 0;
}
