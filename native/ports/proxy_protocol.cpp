#include "proxy_protocol.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

namespace edgeos {
namespace {

using Status = ProxyHeader::Status;

constexpr std::string_view kSignature{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr std::string_view kWord = "PROXY ";
constexpr uint32_t kFixed = 16;  // signature, version and command, family, length
constexpr uint8_t kLocal = 0x20, kProxy = 0x21;
constexpr uint8_t kUnspecified = 0x00, kTcp4 = 0x11, kTcp6 = 0x21, kUnixStream = 0x31;
constexpr uint32_t kTcp4Size = 12, kTcp6Size = 36, kUnixSize = 216;

ProxyHeader malformed() { return {.status = Status::malformed}; }
ProxyHeader complete(uint32_t len) { return {.status = Status::complete, .len = len}; }

// True if `text` starts with `word`, or is the start of it.
bool agrees(std::string_view text, std::string_view word) {
  const size_t both = std::min(text.size(), word.size());
  return text.substr(0, both) == word.substr(0, both);
}

void set_ip4(std::array<uint8_t, 16>& to, const void* from) {
  to = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  std::memcpy(to.data() + 12, from, 4);
}

uint16_t big_endian(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }

// Cuts the text up to the next space, or all of it, off its front.
std::string_view next_word(std::string_view& text) {
  const size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

bool read_address(std::string_view word, bool six, std::array<uint8_t, 16>& to) {
  const std::string text(word);
  if (text.find('\0') != std::string::npos) return false;
  if (six) return inet_pton(AF_INET6, text.c_str(), to.data()) == 1;
  in_addr address;
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) return false;
  set_ip4(to, &address);
  return true;
}

bool read_port(std::string_view word, uint16_t& to) {
  if (word.empty() || (word.size() > 1 && word.front() == '0')) return false;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), to);
  return error == std::errc{} && end == word.data() + word.size();
}

ProxyHeader parse_line(std::string_view text) {
  text = text.substr(0, std::min<size_t>(text.size(), kProxyLineMax));
  const size_t end = text.find_first_of("\r\n");
  if (end == std::string_view::npos) return text.size() == kProxyLineMax ? malformed() : ProxyHeader{};
  if (text[end] != '\r') return malformed();
  if (end + 1 == text.size()) return text.size() == kProxyLineMax ? malformed() : ProxyHeader{};
  if (text[end + 1] != '\n') return malformed();
  ProxyHeader header = complete(static_cast<uint32_t>(end + 2));
  std::string_view line = text.substr(kWord.size(), end - kWord.size());
  const size_t spaces = static_cast<size_t>(std::count(line.begin(), line.end(), ' '));
  const std::string_view protocol = next_word(line);
  if (protocol == "UNKNOWN") return header;  // whatever follows
  const bool six = protocol == "TCP6";
  if ((!six && protocol != "TCP4") || spaces != 4) return malformed();
  const bool good = read_address(next_word(line), six, header.source) &&
                    read_address(next_word(line), six, header.destination) &&
                    read_port(next_word(line), header.source_port) && read_port(next_word(line), header.destination_port);
  header.ip_version = six ? 6 : 4;
  return good ? header : malformed();
}

ProxyHeader parse_binary(std::span<const uint8_t> bytes) {
  if (bytes.size() > 12 && bytes[12] != kLocal && bytes[12] != kProxy) return malformed();
  if (bytes.size() < kFixed) return {};
  const uint8_t command = bytes[12], family = bytes[13];
  const uint32_t size = big_endian(&bytes[14]);
  if (kFixed + size > kProxyHeaderMax) return malformed();
  const uint32_t needed = command == kLocal || family == kUnspecified ? 0
                          : family == kTcp4                            ? kTcp4Size
                          : family == kTcp6                            ? kTcp6Size
                          : family == kUnixStream                      ? kUnixSize
                                                                       : UINT32_MAX;
  if (size < needed) return malformed();
  if (bytes.size() < kFixed + size) return {};
  ProxyHeader header = complete(kFixed + size);
  const uint8_t* p = &bytes[0] + kFixed;
  if (needed == kTcp4Size) {
    header.ip_version = 4;
    set_ip4(header.source, p);
    set_ip4(header.destination, p + 4);
  } else if (needed == kTcp6Size) {
    header.ip_version = 6;
    std::memcpy(header.source.data(), p, 16);
    std::memcpy(header.destination.data(), p + 16, 16);
  } else {
    return header;
  }
  header.source_port = big_endian(p + needed - 4);
  header.destination_port = big_endian(p + needed - 2);
  return header;
}

}  // namespace

ProxyHeader parse_proxy_header(std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (agrees(text, kSignature)) return text.size() < kSignature.size() ? ProxyHeader{} : parse_binary(bytes);
  if (agrees(text, kWord)) return text.size() < kWord.size() ? ProxyHeader{} : parse_line(text);
  return malformed();
}

}  // namespace edgeos
