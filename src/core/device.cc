// SPDX-License-Identifier: Apache-2.0
//
// What a device does that leaves an optional operation out.

#include "usbd/device.h"

#include "usbd/blocking_device.h"

namespace usbd {

Task<Result<void>> Device::trim(ByteRange /*range*/, WriteFlags /*flags*/) {
  co_return Errc::kNotSupported;
}
Task<Result<void>> Device::write_zeroes(ByteRange /*range*/, ZeroFlags /*flags*/) {
  co_return Errc::kNotSupported;
}
Task<Result<std::vector<Extent>>> Device::extents(ByteRange range, size_t /*extents_max*/) {
  const Extent all{.length = range.length, .hole = false, .zero = false};
  co_return std::vector<Extent>{all};
}
Task<Result<void>> Device::cache(ByteRange /*range*/) {
  co_return Result<void>();
}
Task<Result<void>> Device::resize(uint64_t /*size*/) {
  co_return Errc::kNotSupported;
}

std::optional<Result<void>> Device::try_read(uint64_t /*offset*/, MutableBytes /*data*/) {
  return std::nullopt;
}
std::optional<Result<void>> Device::try_write(uint64_t /*offset*/, Bytes /*data*/,
                                              WriteFlags /*flags*/) {
  return std::nullopt;
}
std::optional<Result<void>> Device::try_flush() {
  return std::nullopt;
}
MutableBytes Device::direct(ByteRange /*range*/) {
  return {};
}
void Device::direct_written(ByteRange /*range*/) {}

Result<void> BlockingDevice::trim(ByteRange /*range*/, WriteFlags /*flags*/) {
  return Errc::kNotSupported;
}
Result<void> BlockingDevice::write_zeroes(ByteRange /*range*/, ZeroFlags /*flags*/) {
  return Errc::kNotSupported;
}
Result<std::vector<Extent>> BlockingDevice::extents(ByteRange range, size_t /*extents_max*/) {
  return std::vector<Extent>{{.length = range.length, .hole = false, .zero = false}};
}
Result<void> BlockingDevice::resize(uint64_t /*size*/) {
  return Errc::kNotSupported;
}

}  // namespace usbd
