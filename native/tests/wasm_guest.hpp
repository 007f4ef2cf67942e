// Guests in the text format for tests of the kernel. The Wasmtime library's path comes from the environment variable
// EDGEOS_WASMTIME.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "../kernel/fwp.hpp"

#ifdef __SANITIZE_THREAD__
// The library's own threads synchronise by means that the sanitizer, which does not see its code, cannot know, and it
// leaves its signal handler by a jump. Only what the library itself calls is left out; the kernel is still watched.
// Visible, since the sanitizer is a library of its own.
extern "C" [[gnu::used, gnu::visibility("default")]] const char* __tsan_default_suppressions() {
  return "called_from_lib:_libwasmtime.so\nsignal:_libwasmtime.so";
}
#endif

namespace edgeos::check {

inline constexpr uint32_t kMessages = 1024, kVerdicts = 4096, kData = 8192;

inline void open_library() {
  const char* path = std::getenv("EDGEOS_WASMTIME");
  if (path == nullptr) throw std::runtime_error("set EDGEOS_WASMTIME to the path of Wasmtime's library");
  wasmtime_open(path);
}

inline Layout layout(uint32_t slots = 64, uint32_t slot_size = 256) {
  return Layout{slots, slot_size, slot_size, kMessages, kVerdicts, kData, 4 << 16, 0, {}};
}

inline EngineSettings engine_settings(uint32_t fwps = 16) {
  EngineSettings settings;
  settings.fwps = fwps;
  return settings;
}

// A module whose burst has this body; its parameters are $first and $count.
// `behind` stands behind the exports that the kernel knows by their places.
inline std::vector<uint8_t> module(const std::string& burst, const std::string& fields = "", const std::string& behind = "") {
  const std::string text = "(module (import \"edgeos\" \"emit\" (func $emit (param i32 i32 i32 i32) (result i32)))"
                           "(memory (export \"memory\") 4)" + fields +
                           "(func (export \"edgeos_burst\") (param $first i32) (param $count i32)" + burst + ")" + behind + ")";
  wasm_byte_vec_t bytes;
  wasmtime_check(wt.wasmtime_wat2wasm(text.data(), text.size(), &bytes), "cannot assemble");
  std::vector<uint8_t> wasm(bytes.data, bytes.data + bytes.size);
  wt.wasm_byte_vec_delete(&bytes);
  return wasm;
}

inline std::unique_ptr<FwpTemplate> make_template(const Engine& engine, const std::string& burst = "",
                                                  const std::string& fields = "", Layout l = layout(),
                                                  uint64_t budget_ns = 5'000'000) {
  return std::make_unique<FwpTemplate>(engine, "guest", engine.compile(module(burst, fields)), std::move(l), budget_ns);
}

}  // namespace edgeos::check
