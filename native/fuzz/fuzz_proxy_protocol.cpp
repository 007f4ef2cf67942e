// Any bytes as the start of a connection: the parser ends, reads only what is there, and says the same of a header whatever
// follows it.
#include <cstdlib>
#include <vector>

#include "../ports/proxy_protocol.hpp"

using edgeos::ProxyHeader;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 2048) return 0;
  const std::vector<uint8_t> bytes(data, data + size);  // its own allocation: a read beyond it is noticed
  const ProxyHeader header = edgeos::parse_proxy_header(bytes);
  if (header.status == ProxyHeader::Status::need_more && size >= edgeos::kProxyHeaderMax) std::abort();
  if (header.status != ProxyHeader::Status::complete) return 0;
  if (header.len == 0 || header.len > size || header.len > edgeos::kProxyHeaderMax) std::abort();
  if (header.ip_version != 0 && header.ip_version != 4 && header.ip_version != 6) std::abort();
  const std::vector<uint8_t> alone(data, data + header.len), cut(data, data + header.len - 1);
  const ProxyHeader again = edgeos::parse_proxy_header(alone);
  if (again.status != header.status || again.len != header.len || again.source != header.source ||
      again.destination != header.destination || again.source_port != header.source_port)
    std::abort();
  if (edgeos::parse_proxy_header(cut).status != ProxyHeader::Status::need_more) std::abort();
  return 0;
}
