// SPDX-License-Identifier: Apache-2.0
//
// ReadOnlyLayer: shows a device that can be written as one that cannot. It says so to clients, and
// refuses all the same whoever tries. Direct memory is not handed on, since it can be written.

#pragma once

#include <memory>

#include "layers/layer_device.h"

namespace usbd {

class ReadOnlyLayer final : public LayerDevice {
 public:
  explicit ReadOnlyLayer(std::unique_ptr<Device> below)
      : LayerDevice("readonly", std::move(below)) {}

  [[nodiscard]] Capabilities capabilities() const override;
  /// These fail with kReadOnly.
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<void>> resize(uint64_t size) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;
  /// Empty.
  MutableBytes direct(ByteRange range) override;
};

}  // namespace usbd
