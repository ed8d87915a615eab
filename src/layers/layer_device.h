// SPDX-License-Identifier: Apache-2.0
//
// What layers are made from: LayerDevice hands everything to the device below, GateLayer has every
// request pass a gate first, which may make it wait or fail.

#pragma once

#include <memory>
#include <string>
#include <utility>

#include "core/stats.h"
#include "usbd/device.h"

namespace usbd {

/// A device that is another one, until a method is overridden. Owns the one below and closes it.
class LayerDevice : public Device {
 public:
  /// Lifetime: `layer_name` is a literal.
  LayerDevice(const char* layer_name, std::unique_ptr<Device> below)
      : layer_name_(layer_name), below_(std::move(below)) {}

  /// "<layer>(<name of the device below>)".
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] Geometry geometry() const override;
  [[nodiscard]] Capabilities capabilities() const override;

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override;
  Task<Result<void>> cache(ByteRange range) override;
  Task<Result<void>> resize(uint64_t size) override;
  Task<Result<void>> close() override;

  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;
  std::optional<Result<void>> try_flush() override;
  MutableBytes direct(ByteRange range) override;
  void direct_written(ByteRange range) override;

 protected:
  [[nodiscard]] Device& below() const { return *below_; }

 private:
  const char* const layer_name_;
  const std::unique_ptr<Device> below_;
};

/// A layer that decides on each request before the device below sees it. No request goes by another
/// way: it has no direct memory, and nothing is done inline.
class GateLayer : public LayerDevice {
 public:
  using LayerDevice::LayerDevice;

  [[nodiscard]] Capabilities capabilities() const override;
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override;
  Task<Result<void>> cache(ByteRange range) override;

  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;
  std::optional<Result<void>> try_flush() override;
  MutableBytes direct(ByteRange range) override;

 protected:
  /// Lets the request go on to the device below, when it finishes with success; else the request
  /// fails with its error. `range` is empty for a flush.
  /// Threads: any loop's, any number at once.
  virtual Task<Result<void>> admit(Op op, ByteRange range) = 0;
};

}  // namespace usbd
