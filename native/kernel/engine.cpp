#include "engine.hpp"

#include <sys/mman.h>

namespace edgeos {
namespace {

constexpr uint64_t kPage = 64 << 10;          // of WebAssembly
constexpr uint64_t kFarReservation = 4ULL << 30;  // every 32-bit address: no bounds checks in the code
constexpr uint64_t kFarGuard = 32ULL << 20;
constexpr size_t kWasmStack = 256 << 10;
constexpr uint8_t kCranelift = 1;
constexpr uint8_t kOptimiseSpeed = 1;

uint64_t reservation(const EngineSettings& s) { return s.compact ? s.memory_max : kFarReservation; }
uint64_t guard(const EngineSettings& s) { return s.compact ? kPage : kFarGuard; }

// The library aborts the process when it cannot reserve the pool, so the same reservation is tried first.
void check_reservation(const EngineSettings& s) {
  const uint64_t bytes = (reservation(s) + guard(s)) * s.fwps + guard(s);
  void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw std::runtime_error("cannot reserve " + std::to_string(bytes >> 30) + " GiB of address space for " +
                             std::to_string(s.fwps) + " FWPs; lower max_fwps or set node.memory = \"compact\"");
  munmap(p, bytes);
}

wasmtime_pooling_allocation_config_t* pooling(const EngineSettings& s) {
  auto* pool = wt.wasmtime_pooling_allocation_config_new();
  wt.wasmtime_pooling_allocation_config_total_core_instances_set(pool, s.fwps);
  wt.wasmtime_pooling_allocation_config_total_memories_set(pool, s.fwps);
  wt.wasmtime_pooling_allocation_config_total_tables_set(pool, s.fwps);
  wt.wasmtime_pooling_allocation_config_total_stacks_set(pool, 1);  // of calls on fibers, which there are none of
  wt.wasmtime_pooling_allocation_config_table_elements_set(pool, 1024);
  wt.wasmtime_pooling_allocation_config_max_memory_size_set(pool, s.memory_max);
  wt.wasmtime_pooling_allocation_config_max_core_instance_size_set(pool, 64 << 10);
  wt.wasmtime_pooling_allocation_config_max_unused_warm_slots_set(pool, s.fwps);
  wt.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, s.keep_resident);
  wt.wasmtime_pooling_allocation_config_table_keep_resident_set(pool, 8 << 10);
  wt.wasmtime_pooling_allocation_config_decommit_batch_size_set(pool, 1);
  return pool;
}

wasm_config_t* configuration(const EngineSettings& s) {
  wasm_config_t* config = wt.wasm_config_new();
  wt.wasmtime_config_strategy_set(config, kCranelift);
  wt.wasmtime_config_cranelift_opt_level_set(config, kOptimiseSpeed);
  wt.wasmtime_config_epoch_interruption_set(config, true);
  wt.wasmtime_config_max_wasm_stack_set(config, kWasmStack);
  wt.wasmtime_config_wasm_threads_set(config, false);
  wt.wasmtime_config_wasm_memory64_set(config, false);
  wt.wasmtime_config_wasm_multi_memory_set(config, false);
  wt.wasmtime_config_wasm_tail_call_set(config, false);
  wt.wasmtime_config_wasm_relaxed_simd_set(config, false);
  wt.wasmtime_config_memory_may_move_set(config, false);
  wt.wasmtime_config_memory_reservation_set(config, reservation(s));
  wt.wasmtime_config_memory_guard_size_set(config, guard(s));
  wt.wasmtime_config_memory_init_cow_set(config, s.copy_on_write);
  auto* pool = pooling(s);
  wt.wasmtime_pooling_allocation_strategy_set(config, pool);
  wt.wasmtime_pooling_allocation_config_delete(pool);
  return config;
}

}  // namespace

std::string EngineSettings::code_key() const {
  const uint64_t bytes = reservation(*this);
  return "reservation " + std::to_string(bytes) + ", guard " + std::to_string(guard(*this)) + ", image " +
         std::to_string(copy_on_write);
}

Engine::Engine(const EngineSettings& settings) : settings_(settings) {
  if (settings.fwps == 0 || settings.memory_max == 0 || settings.memory_max % kPage != 0 ||
      settings.memory_max > kFarReservation)
    throw std::runtime_error("an engine needs at least one FWP and a memory of whole 64 KiB pages up to 4 GiB");
  check_reservation(settings);
  engine_ = wt.wasm_engine_new_with_config(configuration(settings));
  if (engine_ == nullptr) throw std::runtime_error("Wasmtime refused the engine's settings");
}

Engine::~Engine() { wt.wasm_engine_delete(engine_); }

std::vector<uint8_t> Engine::compile(std::span<const uint8_t> wasm) const {
  wasmtime_module_t* module = nullptr;
  wasmtime_check(wt.wasmtime_module_new(engine_, wasm.data(), wasm.size(), &module), "cannot compile the guest");
  wasm_byte_vec_t bytes;
  wasmtime_error_t* error = wt.wasmtime_module_serialize(module, &bytes);
  wt.wasmtime_module_delete(module);
  wasmtime_check(error, "cannot serialise the guest");
  std::vector<uint8_t> code(bytes.data, bytes.data + bytes.size);
  wt.wasm_byte_vec_delete(&bytes);
  return code;
}

}  // namespace edgeos
