#include "client_hello.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace edgeos {
namespace {

constexpr size_t kRecordHeader = 5;
constexpr size_t kHandshakeHeader = 4;
constexpr size_t kRecordMax = 16384;
constexpr size_t kRecordsMax = 16;  // that one hello may be cut into
constexpr uint8_t kHandshake = 22;
constexpr uint8_t kClientHelloType = 1;
constexpr uint16_t kServerName = 0;
constexpr uint8_t kHostName = 0;

// Takes values off the front; everything is empty once something was not there.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool good() const { return good_; }
  bool empty() const { return bytes_.empty(); }
  uint32_t number(size_t len) {
    uint32_t value = 0;
    for (const uint8_t byte : take(len)) value = value << 8 | byte;
    return value;
  }
  std::span<const uint8_t> take(size_t len) {
    good_ = good_ && len <= bytes_.size();
    if (!good_) return {};
    const std::span<const uint8_t> taken = bytes_.first(len);
    bytes_ = bytes_.subspan(len);
    return taken;
  }
  // What a length of so many bytes stands in front of.
  std::span<const uint8_t> vector(size_t len_bytes) { return take(number(len_bytes)); }

 private:
  std::span<const uint8_t> bytes_;
  bool good_ = true;
};

std::optional<std::string> host_name(std::span<const uint8_t> raw) {
  if (!raw.empty() && raw.back() == '.') raw = raw.first(raw.size() - 1);
  if (raw.empty() || raw.size() > kServerNameMax) return std::nullopt;
  std::string name;
  for (const uint8_t byte : raw) {
    const bool upper = byte >= 'A' && byte <= 'Z';
    const bool allowed = upper || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_' || byte == '.';
    if (!allowed) return std::nullopt;
    name.push_back(static_cast<char>(upper ? byte + 32 : byte));
  }
  return name;
}

// The first name of the extension server_name; nullopt when it is not as it must be.
std::optional<std::string> name_in(std::span<const uint8_t> extension) {
  Reader list(Reader(extension).vector(2));
  while (!list.empty()) {
    const uint32_t type = list.number(1);
    const std::span<const uint8_t> value = list.vector(2);
    if (!list.good()) return std::nullopt;
    if (type == kHostName) return host_name(value);
  }
  return std::nullopt;
}

// Of a whole message, behind its header.
std::optional<std::string> server_name_of(std::span<const uint8_t> hello) {
  Reader reader(hello);
  reader.take(2 + 32);  // version, random
  reader.vector(1);     // session
  reader.vector(2);     // cipher suites
  reader.vector(1);     // compression
  if (!reader.good()) return std::nullopt;
  if (reader.empty()) return std::string();  // extensions are optional
  Reader extensions(reader.vector(2));
  if (!reader.good() || !reader.empty()) return std::nullopt;
  std::optional<std::string> name = std::string();
  bool found = false;
  while (!extensions.empty()) {
    const uint32_t type = extensions.number(2);
    const std::span<const uint8_t> value = extensions.vector(2);
    if (!extensions.good()) return std::nullopt;
    if (type != kServerName) continue;
    if (found) return std::nullopt;  // each extension comes once
    found = true;
    name = name_in(value);
    if (!name) return std::nullopt;
  }
  return name;
}

ClientHello need(size_t bytes) { return {ClientHello::Status::need_more, bytes, {}}; }

}  // namespace

ClientHello parse_client_hello(std::span<const uint8_t> bytes) {
  std::array<uint8_t, kClientHelloMax> message;  // the records' contents, one behind the other
  size_t have = 0, at = 0, wanted = kHandshakeHeader;
  for (size_t records = 0; records < kRecordsMax; records++) {
    const std::span<const uint8_t> rest = bytes.subspan(at);
    if (!rest.empty() && rest[0] != kHandshake) return {};
    if (rest.size() >= 2 && rest[1] != 3) return {};
    if (rest.size() < kRecordHeader) return at + kRecordHeader <= kClientHelloMax ? need(at + kRecordHeader) : ClientHello{};
    const size_t len = size_t{rest[3]} << 8 | rest[4];
    if (len == 0 || len > kRecordMax) return {};
    const size_t there = std::min(len, rest.size() - kRecordHeader);
    if (there > message.size() - have) return {};
    std::copy_n(rest.begin() + kRecordHeader, there, message.begin() + static_cast<ptrdiff_t>(have));
    have += there;
    if (have >= 1 && message[0] != kClientHelloType) return {};
    if (have >= kHandshakeHeader)
      wanted = kHandshakeHeader + (size_t{message[1]} << 16 | size_t{message[2]} << 8 | message[3]);
    if (wanted > kClientHelloMax) return {};
    if (have >= wanted) {
      std::optional<std::string> name = server_name_of({message.data() + kHandshakeHeader, wanted - kHandshakeHeader});
      if (!name) return {};
      return {ClientHello::Status::complete, 0, std::move(*name)};
    }
    if (there < len) {
      const size_t until = at + kRecordHeader + std::min(len, have - there >= wanted ? len : wanted - (have - there));
      return until <= kClientHelloMax ? need(until) : ClientHello{};
    }
    at += kRecordHeader + len;
  }
  return {};
}

bool server_name_matches(std::string_view wanted, std::string_view name) {
  if (!wanted.starts_with("*.")) return wanted == name;
  const std::string_view suffix = wanted.substr(1);
  return name.size() > suffix.size() && name.ends_with(suffix);
}

}  // namespace edgeos
