#include <nanobind/stl/string.h>

#include "../kernel/drop.hpp"
#include "../kernel/limits.hpp"
#include "../kernel/wasmtime.hpp"
#include "bindings.hpp"

NB_MODULE(_native, m) {
  namespace nb = nanobind;
  m.doc() = "The native kernel of edgeos. Private: use the classes of the package edgeos.";
  m.def("open_wasmtime", &edgeos::wasmtime_open, nb::arg("path"), "Opens Wasmtime's library, once per process.");
  m.attr("BURST") = edgeos::kBurst;
  m.attr("SLOTS_MAX") = edgeos::kSlotsMax;
  edgeos::bind_port(m);
  edgeos::bind_rule(m);
  edgeos::bind_worker(m);
  edgeos::bind_lifecycle(m);
}
