#include "touched_pages.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace edgeos {
namespace {

constexpr uint64_t kTouched = 1ull << 63 | 1ull << 62;  // present; swapped out, or on its way to another place
constexpr size_t kEntries = 4096;                       // asked for at once

}  // namespace

TouchedPages::TouchedPages()
    : page_(static_cast<uint64_t>(sysconf(_SC_PAGESIZE))), pagemap_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)), entries_(kEntries) {
  // Under emulation the tables are those of other addresses: what this has just written must be among the touched.
  const auto own = reinterpret_cast<uintptr_t>(entries_.data()) / page_ * page_;
  known_ = pagemap_.get() >= 0 && read_entries(own, 1) && (entries_[0] & kTouched) != 0;
}

bool TouchedPages::read_entries(uintptr_t from, size_t pages) {
  const size_t bytes = pages * sizeof(uint64_t);
  return pread(pagemap_.get(), entries_.data(), bytes, static_cast<off_t>(from / page_ * sizeof(uint64_t))) == static_cast<ssize_t>(bytes);
}

std::vector<MemoryArea> TouchedPages::of(std::span<const uint8_t> memory) {
  const auto start = reinterpret_cast<uintptr_t>(memory.data());
  const std::vector<MemoryArea> all = {{0, memory.size()}};
  if (!known_ || start % page_ != 0) return all;
  std::vector<MemoryArea> areas;
  for (uint64_t at = 0; at < memory.size();) {
    const size_t pages = std::min<uint64_t>(kEntries, (memory.size() - at + page_ - 1) / page_);
    if (!read_entries(start + at, pages)) return all;
    for (size_t i = 0; i < pages; i++, at += page_) {
      if ((entries_[i] & kTouched) == 0) continue;
      const uint64_t to = std::min<uint64_t>(at + page_, memory.size());
      if (!areas.empty() && areas.back().to == at) {
        areas.back().to = to;
      } else {
        areas.push_back({at, to});
      }
    }
  }
  return areas;
}

std::vector<MemoryArea> without(const std::vector<MemoryArea>& areas, std::span<const MemoryArea> left_out) {
  std::vector<MemoryArea> rest;
  for (const MemoryArea& area : areas) {
    uint64_t at = area.from;
    for (const MemoryArea& out : left_out) {
      if (out.to <= at || out.from >= area.to) continue;
      if (out.from > at) rest.push_back({at, out.from});
      at = out.to;
    }
    if (at < area.to) rest.push_back({at, area.to});
  }
  return rest;
}

}  // namespace edgeos
