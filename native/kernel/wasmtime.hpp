// The part of Wasmtime's C API that the kernel uses, declared here because the Python wheel that carries the library has no
// headers. tests/unit/test_wasmtime_abi.py compares every size, offset and prototype with the wheel's own bindings.
//
// The library is opened at run time by its path, so that one build works wherever the wheel lies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

extern "C" {

struct wasm_config_t;
struct wasm_engine_t;
struct wasm_functype_t;
struct wasm_trap_t;
struct wasm_valtype_t;
struct wasmtime_caller_t;
struct wasmtime_context_t;
struct wasmtime_error_t;
struct wasmtime_instance_pre_t;
struct wasmtime_linker_t;
struct wasmtime_module_t;
struct wasmtime_pooling_allocation_config_t;
struct wasmtime_store_t;

struct wasm_byte_vec_t {
  size_t size;
  char* data;
};

struct wasm_importtype_t;

struct wasm_importtype_vec_t {
  size_t size;
  wasm_importtype_t** data;
};

struct wasm_valtype_vec_t {
  size_t size;
  wasm_valtype_t** data;
};

struct wasmtime_func_t {
  uint64_t store_id;
  void* opaque;
};

struct wasmtime_instance_t {
  uint64_t store_id;
  size_t opaque;
};

struct wasmtime_memory_t {
  struct {
    uint64_t store_id;
    uint32_t opaque1;
  } head;
  uint32_t opaque2;
};

struct wasmtime_global_t {
  uint64_t store_id;
  uint32_t opaque1;
  uint32_t opaque2;
  uint32_t opaque3;
};

struct wasmtime_extern_t {
  uint8_t kind;
  union {
    wasmtime_func_t func;
    wasmtime_memory_t memory;
    wasmtime_global_t global;
  } of;
};

// A number of any type, or a vector; references the kernel does not touch.
struct wasmtime_val_t {
  uint8_t kind;
  union {
    uint8_t v128[16];
    uint64_t whole[3];
  } of;
};

union wasmtime_val_raw_t {
  int32_t i32;
  int64_t i64;
  void* funcref;
  uint8_t v128[16];
};

typedef wasm_trap_t* (*wasmtime_func_unchecked_callback_t)(void* env, wasmtime_caller_t* caller,
                                                          wasmtime_val_raw_t* args_and_results, size_t len);
}

namespace edgeos {

inline constexpr uint8_t kExternFunc = 0;
inline constexpr uint8_t kExternGlobal = 1;
inline constexpr uint8_t kExternMemory = 3;
inline constexpr uint8_t kI64 = 1;  // kinds of a wasmtime_val_t
inline constexpr uint8_t kF64 = 3;
inline constexpr uint8_t kV128 = 4;
inline constexpr uint8_t kValI32 = 0;
inline constexpr uint8_t kValI64 = 1;

// X(return type, name, parameters)
#define EDGEOS_WASMTIME_FUNCTIONS(X)                                                                                    \
  X(wasm_config_t*, wasm_config_new, ())                                                                                \
  X(wasm_engine_t*, wasm_engine_new_with_config, (wasm_config_t*))                                                      \
  X(void, wasm_engine_delete, (wasm_engine_t*))                                                                         \
  X(void, wasm_byte_vec_delete, (wasm_byte_vec_t*))                                                                     \
  X(void, wasm_valtype_vec_new, (wasm_valtype_vec_t*, size_t, wasm_valtype_t* const*))                                  \
  X(wasm_valtype_t*, wasm_valtype_new, (uint8_t))                                                                       \
  X(wasm_functype_t*, wasm_functype_new, (wasm_valtype_vec_t*, wasm_valtype_vec_t*))                                    \
  X(void, wasm_functype_delete, (wasm_functype_t*))                                                                     \
  X(void, wasm_trap_message, (const wasm_trap_t*, wasm_byte_vec_t*))                                                    \
  X(void, wasm_trap_delete, (wasm_trap_t*))                                                                             \
  X(bool, wasmtime_trap_code, (const wasm_trap_t*, uint8_t*))                                                           \
  X(void, wasmtime_error_message, (const wasmtime_error_t*, wasm_byte_vec_t*))                                          \
  X(void, wasmtime_error_delete, (wasmtime_error_t*))                                                                   \
  X(void, wasmtime_config_epoch_interruption_set, (wasm_config_t*, bool))                                               \
  X(void, wasmtime_config_max_wasm_stack_set, (wasm_config_t*, size_t))                                                 \
  X(void, wasmtime_config_wasm_threads_set, (wasm_config_t*, bool))                                                     \
  X(void, wasmtime_config_wasm_memory64_set, (wasm_config_t*, bool))                                                    \
  X(void, wasmtime_config_wasm_multi_memory_set, (wasm_config_t*, bool))                                                \
  X(void, wasmtime_config_wasm_tail_call_set, (wasm_config_t*, bool))                                                   \
  X(void, wasmtime_config_wasm_relaxed_simd_set, (wasm_config_t*, bool))                                                \
  X(void, wasmtime_config_strategy_set, (wasm_config_t*, uint8_t))                                                      \
  X(void, wasmtime_config_cranelift_opt_level_set, (wasm_config_t*, uint8_t))                                           \
  X(void, wasmtime_config_memory_may_move_set, (wasm_config_t*, bool))                                                  \
  X(void, wasmtime_config_memory_reservation_set, (wasm_config_t*, uint64_t))                                           \
  X(void, wasmtime_config_memory_guard_size_set, (wasm_config_t*, uint64_t))                                            \
  X(void, wasmtime_config_memory_init_cow_set, (wasm_config_t*, bool))                                                  \
  X(wasmtime_pooling_allocation_config_t*, wasmtime_pooling_allocation_config_new, ())                                  \
  X(void, wasmtime_pooling_allocation_config_delete, (wasmtime_pooling_allocation_config_t*))                           \
  X(void, wasmtime_pooling_allocation_config_linear_memory_keep_resident_set,                                           \
    (wasmtime_pooling_allocation_config_t*, size_t))                                                                    \
  X(void, wasmtime_pooling_allocation_config_table_keep_resident_set, (wasmtime_pooling_allocation_config_t*, size_t))  \
  X(void, wasmtime_pooling_allocation_config_decommit_batch_size_set, (wasmtime_pooling_allocation_config_t*, size_t))  \
  X(void, wasmtime_pooling_allocation_config_max_unused_warm_slots_set,                                                 \
    (wasmtime_pooling_allocation_config_t*, uint32_t))                                                                  \
  X(void, wasmtime_pooling_allocation_config_total_core_instances_set,                                                  \
    (wasmtime_pooling_allocation_config_t*, uint32_t))                                                                  \
  X(void, wasmtime_pooling_allocation_config_total_memories_set, (wasmtime_pooling_allocation_config_t*, uint32_t))     \
  X(void, wasmtime_pooling_allocation_config_total_tables_set, (wasmtime_pooling_allocation_config_t*, uint32_t))       \
  X(void, wasmtime_pooling_allocation_config_total_stacks_set, (wasmtime_pooling_allocation_config_t*, uint32_t))       \
  X(void, wasmtime_pooling_allocation_config_table_elements_set, (wasmtime_pooling_allocation_config_t*, size_t))       \
  X(void, wasmtime_pooling_allocation_config_max_memory_size_set, (wasmtime_pooling_allocation_config_t*, size_t))      \
  X(void, wasmtime_pooling_allocation_config_max_core_instance_size_set,                                                \
    (wasmtime_pooling_allocation_config_t*, size_t))                                                                    \
  X(void, wasmtime_pooling_allocation_strategy_set, (wasm_config_t*, wasmtime_pooling_allocation_config_t*))            \
  X(wasmtime_error_t*, wasmtime_module_new, (wasm_engine_t*, const uint8_t*, size_t, wasmtime_module_t**))              \
  X(void, wasmtime_module_delete, (wasmtime_module_t*))                                                                 \
  X(wasmtime_error_t*, wasmtime_module_serialize, (wasmtime_module_t*, wasm_byte_vec_t*))                               \
  X(wasmtime_error_t*, wasmtime_module_deserialize, (wasm_engine_t*, const uint8_t*, size_t, wasmtime_module_t**))      \
  X(void, wasmtime_module_imports, (const wasmtime_module_t*, wasm_importtype_vec_t*))                                  \
  X(const wasm_byte_vec_t*, wasm_importtype_name, (const wasm_importtype_t*))                                           \
  X(void, wasm_importtype_vec_delete, (wasm_importtype_vec_t*))                                                         \
  X(wasmtime_linker_t*, wasmtime_linker_new, (wasm_engine_t*))                                                          \
  X(void, wasmtime_linker_delete, (wasmtime_linker_t*))                                                                 \
  X(wasmtime_error_t*, wasmtime_linker_define_func_unchecked,                                                           \
    (wasmtime_linker_t*, const char*, size_t, const char*, size_t, const wasm_functype_t*,                              \
     wasmtime_func_unchecked_callback_t, void*, void (*)(void*)))                                                       \
  X(wasmtime_error_t*, wasmtime_linker_instantiate_pre,                                                                 \
    (const wasmtime_linker_t*, const wasmtime_module_t*, wasmtime_instance_pre_t**))                                    \
  X(void, wasmtime_instance_pre_delete, (wasmtime_instance_pre_t*))                                                     \
  X(wasmtime_error_t*, wasmtime_instance_pre_instantiate,                                                               \
    (const wasmtime_instance_pre_t*, wasmtime_context_t*, wasmtime_instance_t*, wasm_trap_t**))                         \
  X(wasmtime_store_t*, wasmtime_store_new, (wasm_engine_t*, void*, void (*)(void*)))                                    \
  X(wasmtime_context_t*, wasmtime_store_context, (wasmtime_store_t*))                                                   \
  X(void, wasmtime_store_delete, (wasmtime_store_t*))                                                                   \
  X(void, wasmtime_context_set_epoch_deadline, (wasmtime_context_t*, uint64_t))                                         \
  X(void, wasmtime_engine_increment_epoch, (wasm_engine_t*))                                                            \
  X(bool, wasmtime_instance_export_get,                                                                                 \
    (wasmtime_context_t*, const wasmtime_instance_t*, const char*, size_t, wasmtime_extern_t*))                         \
  X(bool, wasmtime_instance_export_nth,                                                                                 \
    (wasmtime_context_t*, const wasmtime_instance_t*, size_t, char**, size_t*, wasmtime_extern_t*))                     \
  X(uint8_t*, wasmtime_memory_data, (const wasmtime_context_t*, const wasmtime_memory_t*))                              \
  X(size_t, wasmtime_memory_data_size, (const wasmtime_context_t*, const wasmtime_memory_t*))                           \
  X(wasmtime_error_t*, wasmtime_memory_grow,                                                                            \
    (wasmtime_context_t*, const wasmtime_memory_t*, uint64_t, uint64_t*))                                               \
  X(void, wasmtime_global_get, (wasmtime_context_t*, const wasmtime_global_t*, wasmtime_val_t*))                        \
  X(wasmtime_error_t*, wasmtime_global_set, (wasmtime_context_t*, const wasmtime_global_t*, const wasmtime_val_t*))     \
  X(wasmtime_error_t*, wasmtime_func_call_unchecked,                                                                    \
    (wasmtime_context_t*, const wasmtime_func_t*, wasmtime_val_raw_t*, size_t, wasm_trap_t**))                          \
  X(wasmtime_error_t*, wasmtime_wat2wasm, (const char*, size_t, wasm_byte_vec_t*))

// The functions of the opened library; every member is set once wasmtime_open() has returned.
struct WasmtimeLibrary {
#define EDGEOS_DECLARE(result, name, parameters) result(*name) parameters = nullptr;
  EDGEOS_WASMTIME_FUNCTIONS(EDGEOS_DECLARE)
#undef EDGEOS_DECLARE
};

extern WasmtimeLibrary wt;

// Opens the library; later calls do nothing. Throws std::runtime_error naming the path or the missing function.
void wasmtime_open(const std::string& path);

// Throws std::runtime_error with "what: the library's words" if `error` is set, and frees it.
void wasmtime_check(wasmtime_error_t* error, const char* what);

}  // namespace edgeos
