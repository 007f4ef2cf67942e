// Reads the server name out of the first bytes of a TLS connection: the ClientHello and its extension server_name (SNI).
//
// The bytes are a stranger's. Only what is there is read; a hello may be cut into records anywhere. Stateless, any thread.
// Sources: RFC 8446 (4.1.2, 5.1), RFC 6066 (3), RFC 5890 for what a host name may hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace edgeos {

inline constexpr size_t kClientHelloMax = 16384;  // bytes looked at, records' headers included
inline constexpr size_t kServerNameMax = 255;

struct ClientHello {
  enum class Status : uint8_t {
    need_more,  // it may be a hello; `needed` bytes from the start will tell more
    complete,   // a hello; `server_name` is empty when it names none
    not_tls,    // no hello, or none that can be believed
  };
  Status status = Status::not_tls;
  size_t needed = 0;
  std::string server_name;  // in lower case, without a dot at its end
};

ClientHello parse_client_hello(std::span<const uint8_t> bytes);

// Whether a name is what a rule asks for: the same, or below "*.example.com" at any depth. Both in lower case.
bool server_name_matches(std::string_view wanted, std::string_view name);

}  // namespace edgeos
