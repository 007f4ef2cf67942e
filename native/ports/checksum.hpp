// The Internet checksum (RFC 1071) over bytes in memory, and the pseudo headers of TCP and UDP (RFC 9293, RFC 8200).
//
// Sums are kept in the byte order of memory, so that a folded sum is stored into a packet as it is, on any machine.
// Pure functions: no owner, any thread, no counters.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeos {

// Adds `len` bytes to a running sum. Only the last piece of a sum may have an odd length.
uint64_t checksum_add(uint64_t sum, const uint8_t* data, size_t len);

// The sum of a pseudo header: `addresses` are source and destination as they lie in the IP header (8 or 32 bytes).
uint64_t checksum_pseudo_header(const uint8_t* addresses, size_t address_bytes, uint8_t protocol, uint32_t l4_len);

// The 16-bit one's complement sum; a packet whose checksum is right sums to 0xffff.
uint16_t checksum_fold(uint64_t sum);

// Stores the complement of the sum.
void checksum_store(uint8_t* field, uint64_t sum);

// The same for TCP and UDP: 0 is stored as 0xffff, because UDP takes 0 for "no checksum" and TCP takes either.
void checksum_store_l4(uint8_t* field, uint64_t sum);

}  // namespace edgeos
