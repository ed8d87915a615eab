// SPDX-License-Identifier: Apache-2.0
//
// USBD_ASSERT: for what only a bug can break. On in every build: a storage daemon that has lost
// track of its own state must stop before it answers. Input from the wire, the disk, the
// configuration or the kernel is never asserted: it is checked and refused.

#pragma once

namespace usbd::detail {

/// Prints the failed condition and where it stands, then aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace usbd::detail

#define USBD_ASSERT(condition)                                          \
  do {                                                                  \
    if (!(condition)) [[unlikely]]                                      \
      ::usbd::detail::assertion_failed(#condition, __FILE__, __LINE__); \
  } while (false)
