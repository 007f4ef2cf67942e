#include "origin.hpp"

#include <algorithm>
#include <stdexcept>

namespace edgeos {
namespace {

std::vector<MemoryArea> kernel_areas(const Layout& l) {
  std::vector<MemoryArea> areas = {{l.messages, l.messages + uint64_t{l.slots} * sizeof(GuestMessage)},
                                   {l.verdicts, l.verdicts + uint64_t{l.slots} * sizeof(int32_t)},
                                   {l.data, l.data + uint64_t{l.slots} * l.slot_stride}};
  std::sort(areas.begin(), areas.end(), [](const MemoryArea& a, const MemoryArea& b) { return a.from < b.from; });
  return areas;
}

}  // namespace

Origin::Origin(const FwpTemplate& tmpl) : left_out(kernel_areas(tmpl.layout())) {
  Fwp probe(tmpl);
  if (std::string why; !probe.instantiate(&why))
    throw std::runtime_error("template." + tmpl.name() + ": cannot make an instance: " + why);
  memory = without_zeroes_at_end({probe.memory, probe.memory_size});
  globals = probe.globals();
}

}  // namespace edgeos
