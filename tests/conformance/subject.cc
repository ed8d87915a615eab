// SPDX-License-Identifier: Apache-2.0
//
// What a subject does that cannot reopen or crash, and the names of operations.

#include "usbd/testing/subject.h"

#include <array>

namespace usbd::testing {

const char* op_kind_name(OpKind kind) {
  constexpr std::array<const char*, kOpKinds> kNames{"read",  "write", "trim",   "write_zeroes",
                                                     "flush", "cache", "extents"};
  return kNames.at(static_cast<size_t>(kind));
}

Result<void> Subject::reopen() {
  return Errc::kNotSupported;
}
Result<void> Subject::crash(std::span<Operation> /*batch*/) {
  return Errc::kNotSupported;
}

}  // namespace usbd::testing
