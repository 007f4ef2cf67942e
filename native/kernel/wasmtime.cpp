#include "wasmtime.hpp"

#include <dlfcn.h>

namespace edgeos {

WasmtimeLibrary wt;

void wasmtime_open(const std::string& path) {
  static bool opened = false;
  if (opened) return;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error("cannot open Wasmtime's library: " + std::string(dlerror()));
#define EDGEOS_RESOLVE(result, name, parameters)                                     \
  wt.name = reinterpret_cast<result(*) parameters>(dlsym(library, #name));           \
  if (wt.name == nullptr) throw std::runtime_error(path + " lacks the function " #name);
  EDGEOS_WASMTIME_FUNCTIONS(EDGEOS_RESOLVE)
#undef EDGEOS_RESOLVE
  opened = true;
}

void wasmtime_check(wasmtime_error_t* error, const char* what) {
  if (error == nullptr) return;
  wasm_byte_vec_t text;
  wt.wasmtime_error_message(error, &text);
  std::string message = std::string(what) + ": " + std::string(text.data, text.size);
  wt.wasm_byte_vec_delete(&text);
  wt.wasmtime_error_delete(error);
  throw std::runtime_error(message);
}

}  // namespace edgeos
