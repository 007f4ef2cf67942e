#include "memory_difference.hpp"

#include <string.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace edgeos {
namespace {

constexpr size_t kBlock = 4096;  // compared at once, as most of a memory is as it began
constexpr size_t kLine = 64;
constexpr size_t kWord = 8;
constexpr std::array<uint8_t, kBlock> kZeroes{};

// Collects differing words that lie side by side to one run.
class Runs {
 public:
  Runs(std::vector<uint8_t>& image, std::span<const uint8_t> memory) : image_(image), memory_(memory) {}

  void add(size_t from, size_t to) {
    if (from != to_) end();
    if (from_ == to_) from_ = from;
    to_ = to;
  }
  size_t pending() const { return to_ - from_; }  // bytes that end() will append
  void end() {
    if (from_ == to_) return;
    put_number(image_, from_ - last_);
    put_number(image_, to_ - from_);
    image_.insert(image_.end(), memory_.begin() + static_cast<ptrdiff_t>(from_), memory_.begin() + static_cast<ptrdiff_t>(to_));
    last_ = from_ = to_;
  }

 private:
  std::vector<uint8_t>& image_;
  std::span<const uint8_t> memory_;
  size_t last_ = 0;  // end of the run before
  size_t from_ = 0;
  size_t to_ = 0;
};

// The differing bytes of one word, or of less at an area's end: from the first to the last.
void compare_word(Runs& runs, const uint8_t* memory, const uint8_t* origin, size_t at, size_t len) {
  if (std::memcmp(memory, origin, len) == 0) return;
  size_t from = 0, to = len;
  while (memory[from] == origin[from]) from++;
  while (memory[to - 1] == origin[to - 1]) to--;
  runs.add(at + from, at + to);
}

void compare_block(Runs& runs, const uint8_t* memory, const uint8_t* origin, size_t at, size_t len) {
  if (std::memcmp(memory, origin, len) == 0) return;
  for (size_t line = 0; line < len; line += kLine) {
    const size_t end = std::min(len, line + kLine);
    if (std::memcmp(memory + line, origin + line, end - line) == 0) continue;
    for (size_t i = line; i < end; i += kWord) compare_word(runs, memory + i, origin + i, at + i, std::min(kWord, end - i));
  }
}

}  // namespace

void put_number(std::vector<uint8_t>& bytes, uint64_t number) {
  for (; number >= 0x80; number >>= 7) bytes.push_back(static_cast<uint8_t>(number | 0x80));
  bytes.push_back(static_cast<uint8_t>(number));
}

bool take_number(std::span<const uint8_t>& bytes, uint64_t& number) {
  number = 0;
  for (uint32_t shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const uint8_t byte = bytes.front();
    bytes = bytes.subspan(1);
    number |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

std::vector<uint8_t> without_zeroes_at_end(std::span<const uint8_t> memory) {
  const auto last = std::find_if(memory.rbegin(), memory.rend(), [](uint8_t byte) { return byte != 0; });
  return {memory.begin(), last.base()};
}

bool append_difference(std::vector<uint8_t>& image, std::span<const uint8_t> memory, std::span<const uint8_t> origin,
                       std::span<const MemoryArea> areas, size_t most) {
  const size_t before = image.size();
  Runs runs(image, memory);
  const auto fits = [&] { return image.size() - before + runs.pending() <= most; };
  for (const MemoryArea& area : areas) {
    const size_t end = std::min<size_t>(area.to, memory.size());
    for (size_t at = area.from, len = 0; at < end && fits(); at += len) {
      const bool beyond = at >= origin.size();
      len = std::min(kBlock - at % kBlock, end - at);
      if (!beyond) len = std::min(len, origin.size() - at);
      compare_block(runs, memory.data() + at, beyond ? kZeroes.data() : origin.data() + at, at, len);
    }
  }
  if (fits()) runs.end();
  if (fits() && runs.pending() == 0) return true;
  if (image.size() > before) explicit_bzero(image.data() + before, image.size() - before);
  image.resize(before);
  return false;
}

// At worst seven of each eight bytes differ, and each seven have two numbers in front of them; the first ones of an area may be large.
size_t largest_image(std::span<const MemoryArea> areas) {
  size_t bytes = 0;
  for (const MemoryArea& area : areas) bytes += (area.to - area.from) / kWord * (kWord + 1) + 2 * kWord + 20;
  return bytes;
}

bool lay_over(std::span<const uint8_t> image, std::span<uint8_t> memory) {
  size_t at = 0;
  while (!image.empty()) {
    uint64_t gap = 0, len = 0;
    if (!take_number(image, gap) || !take_number(image, len)) return false;
    if (len == 0 || gap > memory.size() - at || len > memory.size() - at - gap || len > image.size()) return false;
    std::memcpy(memory.data() + at + gap, image.data(), len);
    at += gap + len;
    image = image.subspan(len);
  }
  return true;
}

}  // namespace edgeos
