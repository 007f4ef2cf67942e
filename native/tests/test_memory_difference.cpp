// Images of memories: what is laid over comes out as it was, whatever the memory; damaged images lead nowhere.
#include "../kernel/memory_difference.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "../kernel/touched_pages.hpp"
#include "check.hpp"

using namespace edgeos;
using namespace edgeos::check;

namespace {

using Bytes = std::vector<uint8_t>;
std::mt19937_64 source(20'261'201);

size_t below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(source); }

// A memory of mostly zeroes, with runs of other bytes.
void scribble(Bytes& memory, size_t runs) {
  for (size_t i = 0; i < runs && !memory.empty(); i++) {
    const size_t from = below(memory.size()), len = std::min(memory.size() - from, below(200) + 1);
    const bool zero = below(4) == 0;
    for (size_t at = from; at < from + len; at++) memory[at] = zero ? 0 : static_cast<uint8_t>(source());
  }
}

Bytes image_of(const Bytes& memory, const Bytes& origin, const std::vector<MemoryArea>& left_out = {}) {
  Bytes image;
  const std::vector<MemoryArea> areas = without({{0, memory.size()}}, left_out);
  CHECK(append_difference(image, memory, without_zeroes_at_end(origin), areas, SIZE_MAX));
  return image;
}

}  // namespace

TEST(what_is_laid_over_is_as_it_was) {
  for (int round = 0; round < 2000; round++) {
    Bytes origin(below(20'000));
    scribble(origin, below(8));
    Bytes memory = origin;
    if (below(3) == 0) memory.resize(memory.size() + below(20'000));  // it has grown
    scribble(memory, below(12));
    const Bytes image = image_of(memory, origin);
    Bytes restored = origin;
    restored.resize(memory.size());
    CHECK(lay_over(image, restored));
    if (restored != memory) fail(__FILE__, __LINE__, "another memory, in round " + std::to_string(round));
  }
}

TEST(what_is_left_out_stays_as_it_began) {
  for (int round = 0; round < 1000; round++) {
    Bytes origin(10'000);
    scribble(origin, 5);
    Bytes memory = origin;
    scribble(memory, 40);
    std::vector<MemoryArea> areas;
    for (size_t at = below(3000); at < origin.size() && areas.size() < 3; at += below(3000)) {
      areas.push_back({at, at + below(2000)});
      at = areas.back().to;
    }
    Bytes restored = origin;
    CHECK(lay_over(image_of(memory, origin, areas), restored));
    Bytes expected = memory;
    for (const MemoryArea& area : areas)
      for (size_t at = area.from; at < std::min<size_t>(area.to, expected.size()); at++) expected[at] = origin[at];
    CHECK(restored == expected);
  }
}

TEST(an_image_is_no_larger_than_it_may_be) {
  Bytes worst(10'000);
  for (size_t i = 0; i < worst.size(); i++) worst[i] = i % 8 != 0;
  const std::vector<MemoryArea> all = {{0, worst.size()}};
  CHECK_EQ(image_of(worst, {}).size(), worst.size() / 8 * 9);
  CHECK(image_of(worst, {}).size() <= largest_image(all));
  for (int round = 0; round < 1000; round++) {
    Bytes memory(below(5000));
    scribble(memory, below(50));
    std::vector<MemoryArea> areas;
    for (size_t at = below(100); at < memory.size(); at += below(1000)) {
      areas.push_back({at, std::min(memory.size(), at + below(500))});
      at = areas.back().to;
    }
    Bytes image;
    CHECK(append_difference(image, memory, {}, areas, SIZE_MAX));
    CHECK(image.size() <= largest_image(areas));
  }
}

TEST(an_image_is_small) {
  Bytes origin(1 << 20), memory(1 << 20);
  CHECK_EQ(image_of(memory, origin).size(), 0u);
  memory[700'000] = 1;
  CHECK_EQ(image_of(memory, origin).size(), 5u);  // three bytes of gap, one of length, the byte itself
  origin = memory;
  CHECK_EQ(image_of(memory, origin).size(), 0u);
}

TEST(an_image_keeps_to_its_bound) {
  Bytes memory(100'000);
  for (uint8_t& byte : memory) byte = 1;
  Bytes image = {42};
  const std::vector<MemoryArea> all = {{0, memory.size()}};
  CHECK(!append_difference(image, memory, {}, all, 99'999));
  CHECK_EQ(image.size(), 1u);
  CHECK(append_difference(image, memory, {}, all, 100'010));
}

TEST(a_memory_that_differs_everywhere_is_not_read_to_its_end) {
  constexpr size_t kMost = 10'000;
  const Bytes memory(1 << 20, 1);
  const std::vector<MemoryArea> all = {{0, memory.size()}};
  Bytes image(100, 42);
  image.reserve(100 + kMost + kOvershoot);
  const uint8_t* place = image.data();
  CHECK(!append_difference(image, memory, {}, all, kMost));
  CHECK_EQ(image.size(), 100u);
  CHECK(image.data() == place);  // it was not moved to have more room
}

TEST(nothing_is_left_of_an_image_that_is_too_large) {
  Bytes memory(100'000);
  for (size_t i = 0; i < memory.size(); i++) memory[i] = i % 16 == 0 ? 0xa5 : 0;
  const std::vector<MemoryArea> all = {{0, memory.size()}};
  Bytes image;
  image.reserve(memory.size());
  CHECK(!append_difference(image, memory, {}, all, 5'000));
  CHECK(std::count(image.data(), image.data() + 5'000, 0xa5) == 0);
}

TEST(pages_that_were_touched_are_found) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  constexpr size_t kPages = 10'000;
  void* mapped = mmap(nullptr, kPages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapped != MAP_FAILED);
  madvise(mapped, kPages * page, MADV_NOHUGEPAGE);
  const std::span<uint8_t> memory{static_cast<uint8_t*>(mapped), kPages * page};
  TouchedPages pages;
  if (!pages.are_known()) {  // as under emulation
    CHECK_EQ(pages.of(memory).size(), 1u);
    CHECK_EQ(pages.of(memory)[0].to, memory.size());
    return;
  }
  CHECK(pages.of(memory).empty());
  for (const size_t number : {size_t{3}, size_t{4}, size_t{4095}, size_t{4096}, kPages - 1}) memory[number * page + 7] = 1;
  const std::vector<MemoryArea> areas = pages.of(memory.first(memory.size() - 5));
  CHECK_EQ(areas.size(), 3u);
  CHECK_EQ(areas[0].from, 3 * page);
  CHECK_EQ(areas[0].to, 5 * page);
  CHECK_EQ(areas[1].from, 4095 * page);
  CHECK_EQ(areas[1].to, 4097 * page);
  CHECK_EQ(areas[2].to, memory.size() - 5);
  CHECK_EQ(pages.of(memory.subspan(1)).size(), 1u);  // it does not begin with a page: all of it
  CHECK_EQ(pages.of(memory.subspan(1))[0].to, memory.size() - 1);
  munmap(mapped, kPages * page);
}

TEST(damaged_images_lead_nowhere) {
  Bytes memory(1000);
  CHECK(lay_over(Bytes{}, memory));
  CHECK(!lay_over(Bytes{5}, memory));                         // no length
  CHECK(!lay_over(Bytes{5, 0}, memory));                      // a run of nothing
  CHECK(!lay_over(Bytes{5, 3, 1, 2}, memory));                // fewer bytes than it says
  CHECK(!lay_over(Bytes{0xe7, 0x07, 2, 1, 2}, memory));       // the last one lies outside
  CHECK(lay_over(Bytes{0xe6, 0x07, 2, 1, 2}, memory));        // the last one fits
  CHECK(!lay_over(Bytes{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 1}, memory));
  CHECK(!lay_over(Bytes{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1}, memory));
  CHECK(!lay_over(Bytes{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}, memory));
}

// Under the address sanitizer nothing outside the memory may be touched, whatever the image.
TEST(any_bytes_may_be_taken_for_an_image) {
  for (int round = 0; round < 20'000; round++) {
    Bytes image(below(40)), memory(below(300));
    for (uint8_t& byte : image) byte = static_cast<uint8_t>(below(3) == 0 ? source() : below(20));
    lay_over(image, memory);
  }
}
