// Which pages of a memory were touched since it was mapped, as the system's page tables say: those that neither lie in memory nor
// in swap are as they began. Looking through the others only leaves them untouched, and takes no time for a memory that is large
// and mostly unused.
//
// Source: Linux, Documentation/admin-guide/mm/pagemap.rst. Owner: Parking; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "../ports/descriptor.hpp"
#include "memory_difference.hpp"

namespace edgeos {

class TouchedPages {
 public:
  TouchedPages();

  // Whether the system tells.
  bool are_known() const { return known_; }
  // In order. All of a memory where the system does not tell, or the memory does not begin with a page.
  std::vector<MemoryArea> of(std::span<const uint8_t> memory);

 private:
  bool read_entries(uintptr_t from, size_t pages);

  uint64_t page_;
  Descriptor pagemap_;
  std::vector<uint64_t> entries_;  // of a stretch of pages
  bool known_ = false;
};

// What of some areas is not in others; both in order.
std::vector<MemoryArea> without(const std::vector<MemoryArea>& areas, std::span<const MemoryArea> left_out);

}  // namespace edgeos
