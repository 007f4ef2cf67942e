// The calls that guests may import from the module "edgeos". A template's linker defines only those that it was granted, so
// a guest cannot be linked to any other.
//
// Threading: they run on the thread that runs guests, inside the run that enter_run() named. All arguments come from the
// guest and are checked.
#pragma once

#include "wasmtime.hpp"

namespace edgeos {

struct Run;
struct Grants;

// The run whose guest this thread is about to call; nullptr afterwards.
void enter_run(Run* run);

// Defines edgeos.emit, edgeos.stream and what is granted.
void define_host_calls(wasmtime_linker_t* linker, const Grants& grants);

}  // namespace edgeos
