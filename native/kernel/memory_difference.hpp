// What a memory differs by from the one it began as: runs of bytes with the gaps between them, much smaller than the memory.
//
//   image = { gap, length, bytes }*    gap: bytes since the last run's end; both as LEB128
//
// Runs are found by words of eight bytes and cut to the bytes that differ. Stateless, any thread. An image is ours and never
// leaves the kernel; it is checked all the same when it is laid over a memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgeos {

struct MemoryArea {
  uint64_t from;
  uint64_t to;
};

// Numbers as LEB128: small ones take one byte.
void put_number(std::vector<uint8_t>& bytes, uint64_t number);
// Takes a number off the front. False, when there is none.
bool take_number(std::span<const uint8_t>& bytes, uint64_t& number);

// Memory as it began, without the zeroes at its end; behind that everything is zero.
std::vector<uint8_t> without_zeroes_at_end(std::span<const uint8_t> memory);

inline constexpr size_t kOvershoot = 8192;

// Appends the image of `memory` against `origin` (see above), of some areas of it, which are given in order and do not overlap.
// False, and nothing appended, when the image would be larger than `most` bytes; that is seen less than kOvershoot bytes
// later, and what was written by then is wiped.
bool append_difference(std::vector<uint8_t>& image, std::span<const uint8_t> memory, std::span<const uint8_t> origin,
                       std::span<const MemoryArea> areas, size_t most);

// Bytes of an image of these areas at the most.
size_t largest_image(std::span<const MemoryArea> areas);

// Lays an image over a memory that is as it began. False when the image is damaged or leads outside: the memory is then not to
// be used.
bool lay_over(std::span<const uint8_t> image, std::span<uint8_t> memory);

}  // namespace edgeos
