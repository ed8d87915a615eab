// SPDX-License-Identifier: Apache-2.0
//
// StatsLayer: counts what the device below is asked for, after core's emulation and read-modify-
// write have had their part, and logs the counts when it is closed. The export's own statistics say
// what clients asked for.

#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "layers/layer_device.h"

namespace usbd {

class StatsLayer final : public LayerDevice {
 public:
  /// Of one kind of operation. `bytes`: of those that succeeded.
  struct Counts {
    uint64_t operations = 0;
    uint64_t bytes = 0;
    uint64_t errors = 0;
  };

  explicit StatsLayer(std::unique_ptr<Device> below) : LayerDevice("stats", std::move(below)) {}

  /// Threads: any; a request that runs meanwhile may be counted in part.
  [[nodiscard]] Counts counts(Op op) const;
  /// "read 3 (12288 bytes, 0 errors), flush 1 (0 bytes, 1 errors)"; "nothing".
  [[nodiscard]] std::string summary() const;

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override;
  Task<Result<void>> cache(ByteRange range) override;
  /// Logs the summary first.
  Task<Result<void>> close() override;

  /// Counted when they did something. Direct memory is not handed on: its reads leave no trace.
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;
  std::optional<Result<void>> try_flush() override;
  MutableBytes direct(ByteRange range) override;

 private:
  struct Counters {
    std::atomic<uint64_t> operations{0};
    std::atomic<uint64_t> bytes{0};
    std::atomic<uint64_t> errors{0};
  };
  void count(Op op, uint64_t bytes, bool success);
  Task<Result<void>> counted(Op op, uint64_t bytes, Task<Result<void>> task);

  std::array<Counters, kOps> counters_;
};

}  // namespace usbd
