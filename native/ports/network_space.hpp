// Network namespaces without a name: one lasts as long as somebody has its descriptor, or a socket made in it, and its
// devices go with it.
//
// Any thread: a namespace is entered by a thread made for that, so that the caller's stays where it is. What the work
// throws is thrown to the caller.
#pragma once

#include <functional>
#include <string>

#include "descriptor.hpp"

namespace edgeos {

// Makes a namespace, does the work in it and returns its descriptor. Needs CAP_SYS_ADMIN; throws with `device` and the fix.
Descriptor make_space(const std::string& device, const std::function<void()>& work);

// Does the work in a namespace. Needs CAP_SYS_ADMIN.
void in_space(const std::string& device, int space, const std::function<void()>& work);

}  // namespace edgeos
