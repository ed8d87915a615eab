// SPDX-License-Identifier: Apache-2.0
//
// Devices as most authors write them, called from the pool: the largest and the smallest set of
// operations, large blocks, and calls that must not overlap.

#include <atomic>
#include <cstring>
#include <mutex>

#include <gtest/gtest.h>

#include "conformance/sparse_image.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

constexpr uint64_t kSize = 4U << 20;

/// Bytes in memory, and nothing that need not be there.
class PlainDisk : public BlockingDevice {
 public:
  explicit PlainDisk(uint32_t block_size) : block_size_(block_size) {}

  [[nodiscard]] uint64_t size() const override { return kSize; }
  [[nodiscard]] uint32_t block_size() const override { return block_size_; }

  Result<void> read_at(uint64_t offset, MutableBytes data) override {
    USBD_TRY_VOID(check(ByteRange(offset, data.size())));
    const std::lock_guard lock(mutex_);
    image_.read(offset, data);
    return {};
  }
  Result<void> write_at(uint64_t offset, Bytes data, WriteFlags /*flags*/) override {
    USBD_TRY_VOID(check(ByteRange(offset, data.size())));
    const std::lock_guard lock(mutex_);
    image_.write(offset, data);
    return {};
  }

 protected:
  /// What the framework promises to authors.
  [[nodiscard]] Result<void> check(ByteRange range) const {
    const bool aligned = ((range.offset | range.length) & (block_size_ - 1)) == 0;
    const bool inside = range.offset <= kSize && range.length <= kSize - range.offset;
    if (aligned && inside && !range.empty()) return {};
    return Error(Errc::kTimedOut, "the framework sent what it never may");
  }
  [[nodiscard]] std::mutex& mutex() { return mutex_; }
  [[nodiscard]] SparseImage& image() { return image_; }

 private:
  const uint32_t block_size_;
  std::mutex mutex_;
  SparseImage image_;
};

/// With every operation that there is.
class FullDisk final : public PlainDisk {
 public:
  using PlainDisk::PlainDisk;

  [[nodiscard]] std::string name() const override { return "full-disk"; }
  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities capabilities;
    capabilities.trim = Support::kNative;
    capabilities.write_zeroes = Support::kNative;
    capabilities.fast_zero = true;
    capabilities.fua = Support::kNative;
    capabilities.extents = Support::kNative;
    return capabilities;
  }
  Result<void> trim(ByteRange range, WriteFlags /*flags*/) override { return clear(range); }
  Result<void> write_zeroes(ByteRange range, ZeroFlags flags) override {
    if (flags.no_hole && flags.fast_only) return Errc::kNotSupported;
    return clear(range);
  }
  Result<std::vector<Extent>> extents(ByteRange range, size_t extents_max) override {
    USBD_TRY_VOID(check(range));
    const std::lock_guard lock(mutex());
    std::vector<Extent> found;
    for (uint64_t at = range.offset; at < range.end(); at += block_size()) {
      const ByteRange block(at, block_size());
      const bool zero = image().first_nonzero(block) == block.end();
      if (!found.empty() && found.back().zero == zero) {
        found.back().length += block.length;
      } else if (found.size() < extents_max) {
        found.push_back({.length = block.length, .hole = zero, .zero = zero});
      } else {
        break;
      }
    }
    return found;
  }

 private:
  Result<void> clear(ByteRange range) {
    USBD_TRY_VOID(check(range));
    const std::lock_guard lock(mutex());
    image().zero(range);
    return {};
  }
};

/// Finds out whether two calls overlap.
class SingleThreadedDisk final : public PlainDisk {
 public:
  using PlainDisk::PlainDisk;

  [[nodiscard]] bool single_threaded() const override { return true; }
  Result<void> read_at(uint64_t offset, MutableBytes data) override {
    if (inside_.exchange(true)) return Error(Errc::kTimedOut, "two calls overlap");
    Result<void> result = PlainDisk::read_at(offset, data);
    inside_ = false;
    return result;
  }
  Result<void> write_at(uint64_t offset, Bytes data, WriteFlags flags) override {
    if (inside_.exchange(true)) return Error(Errc::kTimedOut, "two calls overlap");
    Result<void> result = PlainDisk::write_at(offset, data, flags);
    inside_ = false;
    return result;
  }

 private:
  std::atomic<bool> inside_{false};
};

USBD_CONFORMANCE(PlainBlockingDevice, [] { return std::make_unique<PlainDisk>(512); });
USBD_CONFORMANCE(BlockingDeviceOfBytes, [] { return std::make_unique<PlainDisk>(1); });
USBD_CONFORMANCE(BlockingDeviceOf4096, [] { return std::make_unique<PlainDisk>(4096); });
USBD_CONFORMANCE(BlockingDeviceOf65536, [] { return std::make_unique<PlainDisk>(65'536); });
USBD_CONFORMANCE(FullBlockingDevice, [] { return std::make_unique<FullDisk>(512); });
USBD_CONFORMANCE(FullBlockingDeviceOf4096, [] { return std::make_unique<FullDisk>(4096); });
USBD_CONFORMANCE(SingleThreadedBlockingDevice,
                 [] { return std::make_unique<SingleThreadedDisk>(4096); });

}  // namespace
}  // namespace usbd::testing
