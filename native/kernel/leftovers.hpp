// What setting a node up has left in memory and running it has no use for.
#pragma once

namespace edgeos {

// Gives the allocator's free pages back to the system, which compiling leaves many of, and lets go of the pages of
// Wasmtime's code that are mapped: what runs comes back from the system's file cache by itself, in pieces of 64 KiB. The
// library must be open. From any thread.
void give_back_leftovers();

}  // namespace edgeos
