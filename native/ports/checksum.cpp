#include "checksum.hpp"

#include <arpa/inet.h>

#include <cstring>

namespace edgeos {
namespace {

// Congruent modulo 2^32 - 1, and so modulo 2^16 - 1; at most 2^33.
uint64_t halve(uint64_t sum) { return (sum & 0xffffffffu) + (sum >> 32); }

}  // namespace

uint64_t checksum_add(uint64_t sum, const uint8_t* data, size_t len) {
  uint64_t low = 0, high = 0;  // the halves apart: no carry can be lost within 2^32 words, and no flag links the adds
  uint64_t word, tail = 0;
  for (; len >= sizeof word; data += sizeof word, len -= sizeof word) {
    std::memcpy(&word, data, sizeof word);
    low += word & 0xffffffffu;
    high += word >> 32;
  }
  if (len > 0) std::memcpy(&tail, data, len);  // padded with zeros
  return halve(sum) + halve(low) + halve(high) + halve(tail);
}

uint64_t checksum_pseudo_header(const uint8_t* addresses, size_t address_bytes, uint8_t protocol, uint32_t l4_len) {
  return checksum_add(uint64_t{htonl(protocol)} + htonl(l4_len), addresses, address_bytes);
}

uint16_t checksum_fold(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffffu) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

void checksum_store(uint8_t* field, uint64_t sum) {
  const uint16_t value = static_cast<uint16_t>(~checksum_fold(sum));
  std::memcpy(field, &value, sizeof value);
}

void checksum_store_l4(uint8_t* field, uint64_t sum) {
  checksum_store(field, sum);
  if (field[0] == 0 && field[1] == 0) field[0] = field[1] = 0xff;
}

}  // namespace edgeos
