#include "fwp.hpp"

#include <cassert>
#include <cstring>
#include <string>
#include <string_view>

namespace edgeos {
namespace {

constexpr std::string_view kMemoryExport = "memory";
constexpr std::string_view kBurstExport = "edgeos_burst";
constexpr size_t kMemoryPlace = 0;  // among the exports, in the order in which checkpoints are written
constexpr size_t kBurstPlace = 1;
constexpr uint64_t kWasmPage = 65536;

// Bytes of a number or vector; checkpoints have no other mutable globals.
size_t size_of_value(uint8_t kind) { return kind == kV128 ? 16 : kind == kI64 || kind == kF64 ? 8 : 4; }

// An export whose place is known is found in half the time that its name would take.
bool export_at(wasmtime_context_t* context, const wasmtime_instance_t& instance, size_t place, std::string_view name,
               uint8_t kind, wasmtime_extern_t* item) {
  char* found = nullptr;
  size_t len = 0;
  return wt.wasmtime_instance_export_nth(context, &instance, place, &found, &len, item) && item->kind == kind &&
         std::string_view(found, len) == name;
}

std::string describe(wasmtime_error_t* error, wasm_trap_t* trap) {
  wasm_byte_vec_t text;
  if (error != nullptr) {
    wt.wasmtime_error_message(error, &text);
  } else if (trap != nullptr) {
    wt.wasm_trap_message(trap, &text);
  } else {
    return "it lacks an export that the kernel needs";
  }
  std::string message(text.data, text.size);
  wt.wasm_byte_vec_delete(&text);
  return message;
}

}  // namespace

Fwp::Fwp(const FwpTemplate& tmpl) : slot_size(tmpl.layout().slot_size), tmpl_(&tmpl) {
  const Layout& layout = tmpl.layout();
  ring.mask = layout.slots - 1;
  meta = std::make_unique<MessageMeta[]>(layout.slots);
  stride_ = layout.slot_stride;
  data_address_ = layout.data;
}

void Fwp::destroy() {
  if (store_ != nullptr) wt.wasmtime_store_delete(store_);
  store_ = nullptr;
  state_ = FwpState::empty;
}

bool Fwp::instantiate(std::string* why) {
  assert(state_ == FwpState::empty || state_ == FwpState::dirty);
  destroy();
  store_ = wt.wasmtime_store_new(tmpl_->engine().handle(), nullptr, nullptr);
  context = wt.wasmtime_store_context(store_);
  // The engine itself runs code to set the memory up, and that code checks the deadline too.
  wt.wasmtime_context_set_epoch_deadline(context, tmpl_->budget_ticks());
  wasm_trap_t* trap = nullptr;
  wasmtime_error_t* error = wt.wasmtime_instance_pre_instantiate(tmpl_->instance_pre(), context, &instance_, &trap);
  wasmtime_extern_t memory_item, burst_item;
  const bool made = error == nullptr && trap == nullptr &&
                    export_at(context, instance_, kMemoryPlace, kMemoryExport, kExternMemory, &memory_item) &&
                    export_at(context, instance_, kBurstPlace, kBurstExport, kExternFunc, &burst_item);
  if (!made) {
    if (why != nullptr) *why = describe(error, trap);
    if (error != nullptr) wt.wasmtime_error_delete(error);
    if (trap != nullptr) wt.wasm_trap_delete(trap);
    destroy();
    return false;
  }
  memory_export_ = memory_item.of.memory;
  burst = burst_item.of.func;
  find_memory();
  if (memory_size < tmpl_->layout().memory) {
    if (why != nullptr) *why = "its memory is smaller than its layout";
    destroy();
    return false;
  }
  // A write makes the page present and private now rather than on the client's first message.
  for (const uint64_t page : tmpl_->hot_pages()) {
    volatile uint8_t* p = memory + page;
    *p = *p;
  }
  state_ = FwpState::ready;
  return true;
}

void Fwp::activate(ChainInstance* new_owner, uint8_t new_stage) {
  assert(state_ == FwpState::ready);
  owner = new_owner;
  stage = new_stage;
  turn = kBurst;
  watched = false;
  ring.head = ring.tail = 0;
  state_ = FwpState::active;
}

void Fwp::retire() {
  assert(state_ == FwpState::active && !queued && !running);
  owner = nullptr;
  timers.clear();
  state_ = FwpState::dirty;
}

bool Fwp::find_function(std::string_view name, wasmtime_func_t& function) const {
  wasmtime_extern_t item;
  if (!wt.wasmtime_instance_export_get(context, &instance_, name.data(), name.size(), &item)) return false;
  if (item.kind != kExternFunc) return false;
  function = item.of.func;
  return true;
}

bool Fwp::find_global(uint32_t number, wasmtime_global_t& global) const {
  const std::string name = "global " + std::to_string(number);
  wasmtime_extern_t item;
  if (!wt.wasmtime_instance_export_get(context, &instance_, name.data(), name.size(), &item)) return false;
  if (item.kind != kExternGlobal) return false;
  global = item.of.global;
  return true;
}

std::vector<Fwp::Global> Fwp::globals() const {
  std::vector<Global> all;
  for (wasmtime_global_t global; find_global(static_cast<uint32_t>(all.size()), global);) {
    wasmtime_val_t value;
    wt.wasmtime_global_get(context, &global, &value);
    all.push_back({value.kind, {}});
    std::memcpy(all.back().bytes.data(), &value.of, size_of_value(value.kind));
  }
  return all;
}

bool Fwp::set_global(uint32_t number, const Global& to) {
  wasmtime_global_t global;
  if (!find_global(number, global)) return false;
  wasmtime_val_t value{};
  wt.wasmtime_global_get(context, &global, &value);
  if (value.kind != to.kind) return false;
  std::memcpy(&value.of, to.bytes.data(), to.bytes.size());
  wasmtime_error_t* error = wt.wasmtime_global_set(context, &global, &value);
  if (error != nullptr) wt.wasmtime_error_delete(error);
  return error == nullptr;
}

bool Fwp::grow_memory(uint64_t bytes) {
  if (refresh_memory_size() >= bytes) return true;
  uint64_t before = 0;
  wasmtime_error_t* error =
      wt.wasmtime_memory_grow(context, &memory_export_, (bytes - memory_size + kWasmPage - 1) / kWasmPage, &before);
  if (error != nullptr) wt.wasmtime_error_delete(error);
  find_memory();
  return error == nullptr;
}

// Where the memory lies; growing may move it.
void Fwp::find_memory() {
  memory = wt.wasmtime_memory_data(context, &memory_export_);
  refresh_memory_size();
  const Layout& layout = tmpl_->layout();
  messages_ = reinterpret_cast<GuestMessage*>(memory + layout.messages);
  verdicts_ = reinterpret_cast<const int32_t*>(memory + layout.verdicts);
  data_ = memory + layout.data;
}

uint64_t Fwp::refresh_memory_size() {
  memory_size = wt.wasmtime_memory_data_size(context, &memory_export_);
  return memory_size;
}

}  // namespace edgeos
