#include "leftovers.hpp"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "wasmtime.hpp"

namespace edgeos {
namespace {

bool holds(const dl_phdr_info& object, const ElfW(Phdr) & segment, uintptr_t address) {
  const uintptr_t start = object.dlpi_addr + segment.p_vaddr;
  return segment.p_type == PT_LOAD && address >= start && address - start < segment.p_memsz;
}

// Segments that are never written hold what the file holds, so nothing is lost. A failure only leaves them as they are.
void unmap_pages(const dl_phdr_info& object, const ElfW(Phdr) & segment) {
  if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = (object.dlpi_addr + segment.p_vaddr) / page * page;
  const uintptr_t end = object.dlpi_addr + segment.p_vaddr + segment.p_memsz;
  madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
}

// For each object of the process until one returns other than 0; `address` points to an address inside the one sought.
int unmap_object(dl_phdr_info* object, size_t, void* address) {
  for (int i = 0; i < object->dlpi_phnum; i++) {
    if (!holds(*object, object->dlpi_phdr[i], *static_cast<uintptr_t*>(address))) continue;
    for (int j = 0; j < object->dlpi_phnum; j++) unmap_pages(*object, object->dlpi_phdr[j]);
    return 1;
  }
  return 0;
}

}  // namespace

void give_back_leftovers() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  auto inside = reinterpret_cast<uintptr_t>(wt.wasm_engine_new_with_config);
  dl_iterate_phdr(unmap_object, &inside);
}

}  // namespace edgeos
