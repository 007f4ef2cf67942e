#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "../kernel/lifecycle.hpp"
#include "bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeos {

void bind_lifecycle(nb::module_& m) {
  m.def(
      "measure_lifecycle",
      [](const EngineSettings& settings, const nb::bytes& wasm, uint32_t slots, uint32_t slot_size, uint32_t slot_stride,
         uint32_t messages, uint32_t verdicts, uint32_t data, uint64_t memory, uint32_t stack, uint32_t rounds, uint32_t live,
         uint32_t len, bool random) {
        const Engine engine(settings);
        const std::vector<uint8_t> code = engine.compile({static_cast<const uint8_t*>(wasm.data()), wasm.size()});
        const FwpTemplate tmpl(engine, "bench", code, {slots, slot_size, slot_stride, messages, verdicts, data, memory, stack, {}},
                               1'000'000'000, Grants{.random = random});
        const LifecycleTimes times = measure_lifecycle(tmpl, rounds, live, len);
        nb::dict d;
        d["create"] = times.create;
        d["first_call"] = times.first_call;
        d["recycle"] = times.recycle;
        d["whole_ns"] = times.whole_ns;
        return d;
      },
      "settings"_a, "wasm"_a, nb::kw_only(), "slots"_a, "slot_size"_a, "slot_stride"_a, "messages"_a, "verdicts"_a, "data"_a,
      "memory"_a, "stack"_a, "rounds"_a, "live"_a, "len"_a, "random"_a = false);
}

}  // namespace edgeos
