// SPDX-License-Identifier: Apache-2.0
//
// For tests that would take too long there: whether this program was built with a sanitizer.

#pragma once

namespace usbd {

[[nodiscard]] constexpr bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

}  // namespace usbd
