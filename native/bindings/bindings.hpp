// Bindings, one file per noun; they convert and hold no logic.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "../ports/listener.hpp"

namespace edgeos {

ListenerKind listener_kind(const std::string& kind);  // throws ValueError

void bind_port(nanobind::module_& m);
void bind_rule(nanobind::module_& m);
void bind_worker(nanobind::module_& m);
void bind_lifecycle(nanobind::module_& m);

}  // namespace edgeos
