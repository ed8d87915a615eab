// SPDX-License-Identifier: Apache-2.0
//
// Every change is refused with the same error.

#include "layers/read_only_layer.h"

namespace usbd {

Capabilities ReadOnlyLayer::capabilities() const {
  Capabilities capabilities = below().capabilities();
  capabilities.read_only = true;
  capabilities.trim = Support::kNone;
  capabilities.write_zeroes = Support::kEmulated;
  capabilities.fast_zero = false;
  capabilities.resize = Support::kNone;
  capabilities.volatile_cache = false;
  return capabilities;
}

Task<Result<void>> ReadOnlyLayer::write(uint64_t /*offset*/, Bytes /*data*/, WriteFlags /*flags*/) {
  co_return Errc::kReadOnly;
}
Task<Result<void>> ReadOnlyLayer::trim(ByteRange /*range*/, WriteFlags /*flags*/) {
  co_return Errc::kReadOnly;
}
Task<Result<void>> ReadOnlyLayer::write_zeroes(ByteRange /*range*/, ZeroFlags /*flags*/) {
  co_return Errc::kReadOnly;
}
Task<Result<void>> ReadOnlyLayer::resize(uint64_t /*size*/) {
  co_return Errc::kReadOnly;
}

std::optional<Result<void>> ReadOnlyLayer::try_write(uint64_t /*offset*/, Bytes /*data*/,
                                                     WriteFlags /*flags*/) {
  return Result<void>(Errc::kReadOnly);
}
MutableBytes ReadOnlyLayer::direct(ByteRange /*range*/) {
  return {};
}

}  // namespace usbd
