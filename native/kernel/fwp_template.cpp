#include "fwp_template.hpp"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <string_view>

#include "host_calls.hpp"
#include "limits.hpp"
#include "message.hpp"

namespace edgeos {
namespace {

bool fits(uint64_t address, uint64_t count, uint64_t size, uint64_t align, uint64_t memory) {
  return address % align == 0 && address + count * size <= memory;
}

void check(const Layout& l, uint64_t memory_max) {
  const bool shape = std::has_single_bit(l.slots) && l.slots >= kSlotsMin && l.slots <= kSlotsMax && l.slot_size >= 64 &&
                     l.slot_size <= kSlotSizeMax && l.slot_stride >= l.slot_size && l.memory <= memory_max &&
                     l.counters.size() <= kCountersMax;
  const bool areas = fits(l.messages, l.slots, sizeof(GuestMessage), 8, l.memory) &&
                     fits(l.verdicts, l.slots, sizeof(int32_t), 4, l.memory) &&
                     fits(l.data, l.slots, l.slot_stride, 16, l.memory) && l.stack <= l.memory;
  const bool counters = std::all_of(l.counters.begin(), l.counters.end(),
                                    [&](const CounterLayout& c) { return fits(c.address, 1, 8, 8, l.memory); });
  if (!shape || !areas || !counters) throw std::runtime_error("the guest's layout is out of bounds");
}

// Whether the module imports a call of which this is true.
template <class Is>
bool imports_call(const wasmtime_module_t* module, Is is) {
  wasm_importtype_vec_t imports;
  wt.wasmtime_module_imports(module, &imports);
  const auto is_one = [&](const wasm_importtype_t* import) {
    const wasm_byte_vec_t* name = wt.wasm_importtype_name(import);
    return is(std::string_view(name->data, name->size));
  };
  const bool found = std::any_of(imports.data, imports.data + imports.size, is_one);
  wt.wasm_importtype_vec_delete(&imports);
  return found;
}

bool sends(std::string_view call) { return call != "timer" && call != "clock" && call != "random"; }
bool closes(std::string_view call) { return call == "stream"; }

constexpr uint32_t kHotStack = 128;     // bytes of stack that small guests use
constexpr uint32_t kHotMessage = 1536;  // bytes of a first message

uint64_t page_size() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

std::vector<uint64_t> find_hot_pages(const Layout& l) {
  const uint64_t page = page_size();
  std::vector<uint64_t> pages;
  const auto add = [&](uint64_t from, uint64_t to) {
    for (uint64_t p = from / page * page; p < to && pages.size() < kHotPagesMax; p += page)
      if (std::find(pages.begin(), pages.end(), p) == pages.end()) pages.push_back(p);
  };
  if (l.stack >= kHotStack) add(l.stack - kHotStack, l.stack);
  add(l.messages, l.messages + sizeof(GuestMessage));
  add(l.verdicts, l.verdicts + sizeof(int32_t));
  add(l.data, l.data + std::min(l.slot_size, kHotMessage));
  for (const CounterLayout& c : l.counters) add(c.address, c.address + 8);
  return pages;
}

}  // namespace

uint64_t hot_bytes(const Layout& layout, uint64_t most) {
  uint64_t bytes = 0;
  for (const uint64_t page : find_hot_pages(layout))
    if (page + page_size() <= most) bytes = std::max(bytes, page + page_size());
  return bytes;
}

FwpTemplate::FwpTemplate(const Engine& engine, std::string name, std::span<const uint8_t> code, Layout layout,
                         uint64_t budget_ns, const Grants& grants)
    : engine_(engine),
      name_(std::move(name)),
      layout_(std::move(layout)),
      budget_ticks_(std::max<uint64_t>(1, (budget_ns + kTickNs - 1) / kTickNs) + 1),
      grants_(grants) {
  check(layout_, engine.settings().memory_max);
  hot_pages_ = find_hot_pages(layout_);
  wasmtime_check(wt.wasmtime_module_deserialize(engine.handle(), code.data(), code.size(), &module_),
                 "cannot load the guest's native code");
  emits_ = imports_call(module_, sends);
  closes_flows_ = imports_call(module_, closes);
  wasmtime_linker_t* linker = wt.wasmtime_linker_new(engine.handle());
  define_host_calls(linker, grants_);
  wasmtime_error_t* error = wt.wasmtime_linker_instantiate_pre(linker, module_, &instance_pre_);
  wt.wasmtime_linker_delete(linker);
  if (error != nullptr) wt.wasmtime_module_delete(module_);
  wasmtime_check(error, "cannot link the guest");
}

FwpTemplate::~FwpTemplate() {
  wt.wasmtime_instance_pre_delete(instance_pre_);
  wt.wasmtime_module_delete(module_);
}

}  // namespace edgeos
