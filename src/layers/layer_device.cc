// SPDX-License-Identifier: Apache-2.0
//
// Handing on, and handing on after the gate. A closing is handed on without asking anybody.

#include "layers/layer_device.h"

#include <fmt/format.h>

namespace usbd {

std::string LayerDevice::name() const {
  return fmt::format("{}({})", layer_name_, below_->name());
}
Geometry LayerDevice::geometry() const {
  return below_->geometry();
}
Capabilities LayerDevice::capabilities() const {
  return below_->capabilities();
}

Task<Result<void>> LayerDevice::read(uint64_t offset, MutableBytes data) {
  return below_->read(offset, data);
}
Task<Result<void>> LayerDevice::write(uint64_t offset, Bytes data, WriteFlags flags) {
  return below_->write(offset, data, flags);
}
Task<Result<void>> LayerDevice::flush() {
  return below_->flush();
}
Task<Result<void>> LayerDevice::trim(ByteRange range, WriteFlags flags) {
  return below_->trim(range, flags);
}
Task<Result<void>> LayerDevice::write_zeroes(ByteRange range, ZeroFlags flags) {
  return below_->write_zeroes(range, flags);
}
Task<Result<std::vector<Extent>>> LayerDevice::extents(ByteRange range, size_t extents_max) {
  return below_->extents(range, extents_max);
}
Task<Result<void>> LayerDevice::cache(ByteRange range) {
  return below_->cache(range);
}
Task<Result<void>> LayerDevice::resize(uint64_t size) {
  return below_->resize(size);
}
Task<Result<void>> LayerDevice::close() {
  return below_->close();
}

std::optional<Result<void>> LayerDevice::try_read(uint64_t offset, MutableBytes data) {
  return below_->try_read(offset, data);
}
std::optional<Result<void>> LayerDevice::try_write(uint64_t offset, Bytes data, WriteFlags flags) {
  return below_->try_write(offset, data, flags);
}
std::optional<Result<void>> LayerDevice::try_flush() {
  return below_->try_flush();
}
MutableBytes LayerDevice::direct(ByteRange range) {
  return below_->direct(range);
}
void LayerDevice::direct_written(ByteRange range) {
  below_->direct_written(range);
}

Capabilities GateLayer::capabilities() const {
  Capabilities capabilities = below().capabilities();
  capabilities.never_blocks = false;
  return capabilities;
}

Task<Result<void>> GateLayer::read(uint64_t offset, MutableBytes data) {
  USBD_CO_TRY_VOID(co_await admit(Op::kRead, ByteRange(offset, data.size())));
  co_return co_await below().read(offset, data);
}
Task<Result<void>> GateLayer::write(uint64_t offset, Bytes data, WriteFlags flags) {
  USBD_CO_TRY_VOID(co_await admit(Op::kWrite, ByteRange(offset, data.size())));
  co_return co_await below().write(offset, data, flags);
}
Task<Result<void>> GateLayer::flush() {
  USBD_CO_TRY_VOID(co_await admit(Op::kFlush, ByteRange()));
  co_return co_await below().flush();
}
Task<Result<void>> GateLayer::trim(ByteRange range, WriteFlags flags) {
  USBD_CO_TRY_VOID(co_await admit(Op::kTrim, range));
  co_return co_await below().trim(range, flags);
}
Task<Result<void>> GateLayer::write_zeroes(ByteRange range, ZeroFlags flags) {
  USBD_CO_TRY_VOID(co_await admit(Op::kWriteZeroes, range));
  co_return co_await below().write_zeroes(range, flags);
}
Task<Result<std::vector<Extent>>> GateLayer::extents(ByteRange range, size_t extents_max) {
  USBD_CO_TRY_VOID(co_await admit(Op::kExtents, range));
  co_return co_await below().extents(range, extents_max);
}
Task<Result<void>> GateLayer::cache(ByteRange range) {
  USBD_CO_TRY_VOID(co_await admit(Op::kCache, range));
  co_return co_await below().cache(range);
}

std::optional<Result<void>> GateLayer::try_read(uint64_t /*offset*/, MutableBytes /*data*/) {
  return std::nullopt;
}
std::optional<Result<void>> GateLayer::try_write(uint64_t /*offset*/, Bytes /*data*/,
                                                 WriteFlags /*flags*/) {
  return std::nullopt;
}
std::optional<Result<void>> GateLayer::try_flush() {
  return std::nullopt;
}
MutableBytes GateLayer::direct(ByteRange /*range*/) {
  return {};
}

}  // namespace usbd
