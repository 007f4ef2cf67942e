// Any two memories: what is laid over comes out as it was. Any bytes as an image: nothing outside the memory is touched.
#include <cstdlib>
#include <cstring>

#include "../kernel/memory_difference.hpp"

using namespace edgeos;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const size_t split = (size - 2) * data[0] / 255;
  const std::vector<uint8_t> origin(data + 2, data + 2 + split);
  std::vector<uint8_t> memory(data + 2 + split, data + size);
  if (memory.size() < origin.size()) memory.resize(origin.size());  // a memory never shrinks
  const std::vector<MemoryArea> all = {{0, memory.size()}};
  std::vector<uint8_t> image, restored = origin;
  restored.resize(memory.size());
  if (!append_difference(image, memory, without_zeroes_at_end(origin), all, SIZE_MAX)) std::abort();
  if (image.size() > largest_image(all) || !lay_over(image, restored) || restored != memory) std::abort();

  std::vector<uint8_t> target(size_t{data[1]} * 4);
  lay_over({data + 2, size - 2}, target);
  return 0;
}
