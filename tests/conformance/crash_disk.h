// SPDX-License-Identifier: Apache-2.0
//
// CrashDisk: a disk in memory that can lose its power, and the Device that it is served as. What
// was written since the last flush is kept, lost or torn at a sector when the power goes. It
// outlives its devices, so a test opens it again. It stands for durable devices where their layers,
// or the suite itself, are tested.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/random.h"
#include "conformance/sparse_image.h"
#include "usbd/device.h"
#include "usbd/loop.h"

namespace usbd::testing {

/// Threads: any.
class CrashDisk {
 public:
  struct Options {
    uint64_t seed = 1;
    /// Units: bytes.
    uint64_t size = 4U << 20;
    uint32_t block_size = 512;
    uint32_t max_io = 256U << 10;
    Capabilities capabilities = everything_native();
    /// A fault to be found: a flush forgets what other loops have written.
    bool flush_covers_own_loop_only = false;
  };

  [[nodiscard]] static Capabilities everything_native();

  explicit CrashDisk(Options options) : options_(options), rng_(options.seed) {}

  [[nodiscard]] const Options& options() const { return options_; }

  /// A device of all of the disk; dies when the disk crashes. Lifetime: the disk outlives it.
  std::unique_ptr<Device> open();
  /// Takes the power away.
  void crash();

 private:
  friend class CrashDevice;
  static constexpr uint64_t kSector = 512;

  /// One write, trim or zeroing that is not surely durable, or came after one that is not.
  struct Change {
    uint64_t number = 0;
    ByteRange range;
    /// Empty: zeros.
    std::vector<std::byte> data;
    bool durable = false;
    const Loop* loop = nullptr;
  };

  // The calls of a device. False, or empty: its life is over.
  [[nodiscard]] bool read(uint64_t life, uint64_t offset, MutableBytes data);
  [[nodiscard]] bool change(uint64_t life, Change change);
  [[nodiscard]] std::optional<uint64_t> begin_flush(uint64_t life);
  [[nodiscard]] bool end_flush(uint64_t life, uint64_t number);
  [[nodiscard]] std::vector<Extent> extents(uint64_t life, ByteRange range, size_t extents_max);
  static void apply(SparseImage& image, const Change& change, ByteRange part);
  [[nodiscard]] uint64_t turns();

  const Options options_;
  std::mutex mutex_;
  SeededRng rng_;
  SparseImage present_;
  SparseImage durable_;
  std::vector<Change> changes_;
  uint64_t changes_made_ = 0;
  /// How often power was lost; a device belongs to one life.
  uint64_t life_ = 0;
};

}  // namespace usbd::testing
