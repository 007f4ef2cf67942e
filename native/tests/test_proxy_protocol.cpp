// PROXY protocol headers: good ones whole and in pieces, and everything that is none.
#include "../ports/proxy_protocol.hpp"

#include <arpa/inet.h>

#include <random>

#include "check.hpp"

using namespace edgeos;
using Status = ProxyHeader::Status;

namespace {

ProxyHeader parse(const std::string& text) {
  const std::vector<uint8_t> bytes(text.begin(), text.end());  // its own allocation: a read beyond it is noticed
  return parse_proxy_header(bytes);
}

// Whole, followed by data, and cut off anywhere: only the whole is complete.
ProxyHeader whole(const std::string& text) {
  for (size_t len = 0; len < text.size(); len++) CHECK(parse(text.substr(0, len)).status == Status::need_more);
  const ProxyHeader alone = parse(text), followed = parse(text + "GET / HTTP/1.1\r\n");
  CHECK(alone.status == Status::complete && followed.status == Status::complete);
  CHECK_EQ(alone.len, text.size());
  CHECK_EQ(followed.len, text.size());
  CHECK(followed.source == alone.source && followed.source_port == alone.source_port);
  return alone;
}

std::string address(const std::array<uint8_t, 16>& bytes) {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
}

std::string binary(uint8_t command, uint8_t family, const std::string& rest) {
  std::string text("\r\n\r\n\0\r\nQUIT\n", 12);
  for (const size_t byte : {size_t{command}, size_t{family}, rest.size() >> 8, rest.size() & 0xff})
    text += static_cast<char>(byte);
  return text + rest;
}

const std::string kFour("\x0a\x00\x00\x01\xc0\x00\x02\x07\x9c\x40\x00\x50", 12);

}  // namespace

TEST(a_line_names_an_ip4_client) {
  const ProxyHeader h = whole("PROXY TCP4 10.0.0.1 192.0.2.7 40000 80\r\n");
  CHECK_EQ(int{h.ip_version}, 4);
  CHECK_EQ(address(h.source), "::ffff:10.0.0.1");
  CHECK_EQ(address(h.destination), "::ffff:192.0.2.7");
  CHECK_EQ(h.source_port, 40000);
  CHECK_EQ(h.destination_port, 80);
}

TEST(a_line_names_an_ip6_client) {
  const ProxyHeader h = whole("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n");
  CHECK_EQ(int{h.ip_version}, 6);
  CHECK_EQ(address(h.source), "2001:db8::1");
  CHECK_EQ(address(h.destination), "::1");
  CHECK_EQ(h.source_port, 65535);
}

TEST(a_line_of_the_greatest_length) {
  const std::string full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
  whole("PROXY TCP6 " + full + " " + full + " 65535 65535\r\n");
  CHECK_EQ(int{whole("PROXY UNKNOWN " + full + " " + full + " 65535 65535\r\n").ip_version}, 0);
  whole("PROXY UNKNOWN " + std::string(91, 'x') + "\r\n");
  CHECK(parse("PROXY UNKNOWN " + std::string(92, 'x') + "\r\n").status == Status::malformed);
  CHECK(parse("PROXY UNKNOWN " + std::string(93, 'x')).status == Status::malformed);
}

TEST(lines_that_name_nobody) {
  CHECK_EQ(int{whole("PROXY UNKNOWN\r\n").ip_version}, 0);
  CHECK_EQ(int{whole("PROXY UNKNOWN ??? whatever it is\r\n").ip_version}, 0);
}

TEST(lines_that_are_wrong) {
  for (const char* line : {"GET / HTTP/1.1\r\n", "PROXX", "PROXY\r\n", "PROXY \r\n", "PROXY TCP4\r\n", "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
                           "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
                           "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "PROXY TCP4 ::1 ::1 1 2\r\n",
                           "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
                           "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
                           "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", "PROXY UNKNOWN\rx",
                           "proxy TCP4", "\r\nPROXY"})
    if (parse(line).status != Status::malformed) CHECK_EQ(std::string(line), "malformed");
  CHECK(parse(std::string("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n", 34)).status == Status::malformed);
}

TEST(a_binary_header_names_its_client) {
  const ProxyHeader four = whole(binary(0x21, 0x11, kFour));
  CHECK_EQ(int{four.ip_version}, 4);
  CHECK_EQ(address(four.source), "::ffff:10.0.0.1");
  CHECK_EQ(address(four.destination), "::ffff:192.0.2.7");
  CHECK_EQ(four.source_port, 40000);
  CHECK_EQ(four.destination_port, 80);
  std::string rest(32, '\0');
  rest[0] = 0x20;
  rest[15] = 1;
  rest[31] = 2;
  const ProxyHeader six = whole(binary(0x21, 0x21, rest + std::string("\x01\x00\x02\x00", 4)));
  CHECK_EQ(int{six.ip_version}, 6);
  CHECK_EQ(address(six.source), "2000::1");
  CHECK_EQ(address(six.destination), "::2");
  CHECK_EQ(six.source_port, 256);
  CHECK_EQ(six.destination_port, 512);
}

TEST(what_follows_the_addresses_is_skipped) {
  const ProxyHeader h = whole(binary(0x21, 0x11, kFour + std::string("\x03\x00\x04\x01\x02\x03\x04", 7)));
  CHECK_EQ(h.source_port, 40000);
  whole(binary(0x21, 0x11, kFour + std::string(kProxyHeaderMax - 16 - 12, 'x')));
  CHECK(parse(binary(0x21, 0x11, kFour + std::string(kProxyHeaderMax - 16 - 11, 'x'))).status == Status::malformed);
}

TEST(binary_headers_that_name_nobody) {
  CHECK_EQ(int{whole(binary(0x20, 0x00, "")).ip_version}, 0);
  CHECK_EQ(int{whole(binary(0x20, 0x11, kFour)).ip_version}, 0);
  CHECK_EQ(int{whole(binary(0x21, 0x00, "abc")).ip_version}, 0);
  CHECK_EQ(int{whole(binary(0x21, 0x31, std::string(216, 'p'))).ip_version}, 0);
}

TEST(binary_headers_that_are_wrong) {
  CHECK(parse(binary(0x11, 0x11, kFour)).status == Status::malformed);  // version 1
  CHECK(parse(binary(0x22, 0x11, kFour)).status == Status::malformed);  // no such command
  CHECK(parse(binary(0x21, 0x12, kFour)).status == Status::malformed);  // UDP
  CHECK(parse(binary(0x21, 0x41, kFour)).status == Status::malformed);
  CHECK(parse(binary(0x21, 0x11, kFour.substr(1))).status == Status::malformed);
  CHECK(parse(binary(0x21, 0x21, kFour)).status == Status::malformed);
  CHECK(parse(binary(0x21, 0x31, kFour)).status == Status::malformed);
  CHECK(parse(binary(0x21, 0x11, kFour).substr(0, 11) + "x").status == Status::malformed);
}

TEST(hostile_bytes_stay_within_bounds) {
  std::mt19937 random(11);
  for (int round = 0; round < 200'000; round++) {
    std::string text = round % 2 == 0 ? binary(0x21, 0x11, kFour) : "PROXY TCP4 10.0.0.1 192.0.2.7 40000 80\r\n";
    for (uint32_t changes = random() % 4; changes > 0; changes--) text[random() % text.size()] = static_cast<char>(random());
    text.resize(random() % (text.size() + 1));
    const ProxyHeader h = parse(text);
    if (h.status == Status::complete) CHECK(h.len > 0 && h.len <= text.size());
  }
}
