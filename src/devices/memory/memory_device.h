// SPDX-License-Identifier: Apache-2.0
//
// MemoryDevice: a block device in the memory of this process. The whole device is one mapping,
// reserved for its life without taking memory; a page is taken when it is first written and given
// back when it is trimmed or zeroed. Frontends send from and receive into the mapping directly.
//
// What the device knows about its pages stands in a PageMap: a page whose bit is clear reads as
// zeros and has no memory of its own. The map follows the data: set after bytes have landed,
// cleared before they go.

#pragma once

#include <memory>
#include <string>

#include "devices/memory/page_map.h"
#include "usbd/device.h"

namespace usbd {

class MemoryDevice final : public Device {
 public:
  /// The largest device: half of what Linux gives a process on x86-64. Units: bytes.
  static constexpr uint64_t kSizeMax = uint64_t{1} << 46;

  struct Options {
    /// Units: bytes; any number from 1 to kSizeMax.
    uint64_t size = 0;
    uint32_t logical_block_size = 4096;
  };

  /// Reserves the device; it reads as zeros.
  /// Errors: kInvalid (size), kNoMemory (the system reserves no such mapping).
  static Result<std::unique_ptr<MemoryDevice>> open(Options options);
  ~MemoryDevice() override;

  /// The memory that the device's data takes at present. Units: bytes. Threads: any.
  [[nodiscard]] uint64_t resident_bytes() const;

  [[nodiscard]] std::string name() const override { return "mem"; }
  [[nodiscard]] Geometry geometry() const override;
  [[nodiscard]] Capabilities capabilities() const override;

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  /// Success, nothing done: there is nothing that a crash of this process would leave.
  Task<Result<void>> flush() override;
  /// Gives the pages of the range back, 64 MiB at a time, with other work of the loop in between.
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  /// The same, or with no_hole writes zeros into pages that stay or are taken; both count as fast:
  /// no bytes cross a socket.
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override;
  Task<Result<void>> close() override;

  /// These three never return empty.
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;
  std::optional<Result<void>> try_flush() override;
  MutableBytes direct(ByteRange range) override;
  void direct_written(ByteRange range) override;

 private:
  explicit MemoryDevice(Options options);
  Result<void> reserve();
  void unmap();
  void check(ByteRange range) const;
  void load(uint64_t offset, MutableBytes data) const;
  void store(uint64_t offset, Bytes data);
  void zero_in_place(ByteRange range);
  void zero_if_written(ByteRange range_in_page);
  void give_back(uint64_t first_page, uint64_t end_page);
  Task<Result<void>> release(ByteRange range);
  Task<Result<void>> fill_with_zeros(ByteRange range);

  const Options options_;
  std::byte* memory_ = nullptr;
  size_t mapped_bytes_ = 0;
  std::unique_ptr<PageMap> written_;
};

}  // namespace usbd
