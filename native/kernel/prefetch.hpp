// Starts to bring lines of memory near, for what follows soon.
//
// Stateless, any thread.
#pragma once

namespace edgeos {

// GCC takes a function that does nothing but fetch ahead for one without effects, and removes the calls; the empty
// statement is an effect.
inline void prefetch_line(const void* line) {
  __builtin_prefetch(line, 1);
  asm volatile("" : : "r"(line));
}

}  // namespace edgeos
