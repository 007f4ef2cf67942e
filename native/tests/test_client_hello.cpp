// Server names out of hellos that are whole, in pieces, in many records, and spoilt.
#include "../ports/client_hello.hpp"

#include <random>
#include <vector>

#include "check.hpp"

using namespace edgeos;

namespace {

using Bytes = std::vector<uint8_t>;
using Status = ClientHello::Status;

void append(Bytes& to, const Bytes& more) {
  for (const uint8_t byte : more) to.push_back(byte);
}

Bytes with_length(const Bytes& body, size_t len_bytes) {
  Bytes all;
  for (size_t i = len_bytes; i > 0; i--) all.push_back(static_cast<uint8_t>(body.size() >> (8 * (i - 1))));
  append(all, body);
  return all;
}

Bytes extension(uint16_t type, const Bytes& value) {
  Bytes all{static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type)};
  append(all, with_length(value, 2));
  return all;
}

Bytes sni(const std::string& name) {
  Bytes entry{0};
  append(entry, with_length(Bytes(name.begin(), name.end()), 2));
  return extension(0, with_length(entry, 2));
}

Bytes message(const Bytes& extensions) {
  Bytes body{3, 3};
  body.resize(34, 0xab);
  append(body, with_length(Bytes(32, 1), 1));
  append(body, with_length({0x13, 1, 0x13, 2}, 2));
  append(body, with_length({0}, 1));
  append(body, with_length(extensions, 2));
  Bytes all{1};
  append(all, with_length(body, 3));
  return all;
}

Bytes records(const Bytes& content, size_t each) {
  Bytes all;
  for (size_t at = 0; at < content.size(); at += each) {
    const size_t len = std::min(each, content.size() - at);
    append(all, {22, 3, 1});
    append(all, with_length(Bytes(content.begin() + static_cast<ptrdiff_t>(at), content.begin() + static_cast<ptrdiff_t>(at + len)), 2));
  }
  return all;
}

Bytes hello(const std::string& name, size_t each = 16384) {
  Bytes extensions = extension(10, {0, 2, 0, 29});
  append(extensions, sni(name));
  append(extensions, extension(16, {0, 3, 2, 'h', '2'}));
  return records(message(extensions), each);
}

}  // namespace

TEST(a_name_is_found_in_lower_case_and_without_its_dot) {
  const ClientHello found = parse_client_hello(hello("WWW.Example.COM."));
  CHECK(found.status == Status::complete);
  CHECK_EQ(found.server_name, std::string("www.example.com"));
}

TEST(a_hello_without_a_name_is_one_all_the_same) {
  const ClientHello found = parse_client_hello(records(message(extension(10, {0, 2, 0, 29})), 16384));
  CHECK(found.status == Status::complete);
  CHECK(found.server_name.empty());
}

TEST(what_came_so_far_says_how_much_is_missing) {
  for (const size_t each : {size_t{16384}, size_t{100}, size_t{17}}) {
    const Bytes all = hello("a.example.com", each);
    uint32_t asked = 0;
    for (size_t have = 0;;) {
      const ClientHello found = parse_client_hello(std::span(all).first(have));
      if (found.status == Status::complete) {
        CHECK_EQ(found.server_name, std::string("a.example.com"));
        break;
      }
      CHECK(found.status == Status::need_more && found.needed > have && found.needed <= all.size());
      if (found.status != Status::need_more || found.needed > all.size()) break;
      have = found.needed;
      asked++;
    }
    CHECK(asked <= 3 * (all.size() / each + 1));
    for (size_t have = 0; have < all.size(); have++)
      CHECK(parse_client_hello(std::span(all).first(have)).status == Status::need_more);
  }
}

TEST(what_is_no_hello_is_said_at_once) {
  const auto status = [](const std::string& text) { return parse_client_hello(Bytes(text.begin(), text.end())).status; };
  CHECK(status("GET / HTTP/1.1\r\n") == Status::not_tls);
  CHECK(status("\x16\x02") == Status::not_tls);
  CHECK(status(std::string("\x16\x03\x01\x00\x00", 5)) == Status::not_tls);   // an empty record
  CHECK(status(std::string("\x16\x03\x01\x40\x01", 5)) == Status::not_tls);   // too large a record
  CHECK(status(std::string("\x16\x03\x01\x00\x10\x02", 6)) == Status::not_tls);  // another message
  CHECK(status("") == Status::need_more);
}

TEST(names_that_cannot_be_hosts_are_not_believed) {
  for (const std::string& bad : {std::string("a b"), std::string("a\0b", 3), std::string(256, 'a'), std::string("caf\xc3\xa9"), std::string()})
    CHECK(parse_client_hello(hello(bad)).status == Status::not_tls);
  Bytes twice = sni("a.example");
  append(twice, sni("b.example"));
  CHECK(parse_client_hello(records(message(twice), 16384)).status == Status::not_tls);
}

TEST(a_hello_in_too_many_pieces_or_too_large_is_given_up) {
  CHECK(parse_client_hello(hello("a.example.com", 1)).status == Status::not_tls);
  Bytes large = extension(21, Bytes(20'000));
  append(large, sni("a.example.com"));
  CHECK(parse_client_hello(records(message(large), 16384)).status == Status::not_tls);
}

TEST(spoilt_hellos_never_name_what_nobody_wrote) {
  std::mt19937 random(5);
  const Bytes good = hello("a.example.com", 90);
  for (int round = 0; round < 20'000; round++) {
    Bytes bytes = good;
    for (uint32_t changes = 1 + random() % 4; changes > 0; changes--) bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    const ClientHello found = parse_client_hello(bytes);
    CHECK(found.server_name.size() <= kServerNameMax);
    if (found.status == Status::need_more) CHECK(found.needed > bytes.size() && found.needed <= kClientHelloMax);
  }
}

TEST(names_match_as_they_are_or_below_a_star) {
  CHECK(server_name_matches("a.example.com", "a.example.com"));
  CHECK(!server_name_matches("a.example.com", "b.a.example.com"));
  CHECK(server_name_matches("*.example.com", "a.example.com"));
  CHECK(server_name_matches("*.example.com", "a.b.example.com"));
  CHECK(!server_name_matches("*.example.com", "example.com"));
  CHECK(!server_name_matches("*.example.com", ".example.com"));
  CHECK(!server_name_matches("*.example.com", "a.notexample.com"));
  CHECK(!server_name_matches("*.example.com", ""));
}
