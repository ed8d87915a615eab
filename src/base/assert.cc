// SPDX-License-Identifier: Apache-2.0
//
// The end of a process that found a bug in itself.

#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace usbd::detail {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "usbd: internal error: %s:%d: assertion failed: %s\n", file, line,
               condition);
  std::abort();
}

}  // namespace usbd::detail
