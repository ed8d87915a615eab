// SPDX-License-Identifier: Apache-2.0
//
// Two images (what reads see, what is surely durable) and the list of changes between them.

#include "conformance/crash_disk.h"

#include <algorithm>

#include "base/assert.h"

namespace usbd::testing {

class CrashDevice final : public Device {
 public:
  CrashDevice(CrashDisk& disk, uint64_t life) : disk_(disk), life_(life) {}

  [[nodiscard]] std::string name() const override { return "crash-disk"; }
  [[nodiscard]] Geometry geometry() const override {
    Geometry geometry;
    geometry.size = disk_.options_.size;
    geometry.block_size = disk_.options_.block_size;
    geometry.logical_block_size = std::clamp(disk_.options_.block_size, 512U, 4096U);
    geometry.max_io = disk_.options_.max_io;
    return geometry;
  }
  [[nodiscard]] Capabilities capabilities() const override { return disk_.options_.capabilities; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    check(ByteRange(offset, data.size()));
    co_await some_turns();
    if (!disk_.read(life_, offset, data)) co_return power_is_off();
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    USBD_ASSERT(!flags.fua || capabilities().fua == Support::kNative);
    CrashDisk::Change change;
    change.range = ByteRange(offset, data.size());
    change.data.assign(data.begin(), data.end());
    change.durable = flags.fua;
    return apply(std::move(change));
  }
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override {
    USBD_ASSERT(capabilities().trim == Support::kNative);
    return clear(range, flags.fua);
  }
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override {
    USBD_ASSERT(capabilities().write_zeroes == Support::kNative);
    return clear(range, flags.fua);
  }
  Task<Result<void>> flush() override {
    const std::optional<uint64_t> number = disk_.begin_flush(life_);
    co_await some_turns();
    if (!number || !disk_.end_flush(life_, *number)) co_return power_is_off();
    co_return Result<void>();
  }
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override {
    check(range);
    co_await some_turns();
    std::vector<Extent> found = disk_.extents(life_, range, extents_max);
    if (found.empty()) co_return power_is_off();
    co_return found;
  }
  Task<Result<void>> close() override { co_return co_await flush(); }

 private:
  static Error power_is_off() { return Error(Errc::kIo, "the power is off"); }

  void check(ByteRange range) const {
    USBD_ASSERT(!range.empty());
    USBD_ASSERT(((range.offset | range.length) & (disk_.options_.block_size - 1)) == 0);
    USBD_ASSERT(range.offset <= disk_.options_.size);
    USBD_ASSERT(range.length <= disk_.options_.size - range.offset);
  }
  Task<Result<void>> clear(ByteRange range, bool fua) {
    CrashDisk::Change change;
    change.range = range;
    change.durable = fua;
    return apply(std::move(change));
  }
  Task<Result<void>> apply(CrashDisk::Change change) {
    check(change.range);
    USBD_ASSERT(change.data.size() <= disk_.options_.max_io);
    change.loop = &Loop::current();
    co_await some_turns();
    if (!disk_.change(life_, std::move(change))) co_return power_is_off();
    co_return Result<void>();
  }
  /// Lets others go first, as a disk that is busy would.
  Task<void> some_turns() {
    for (uint64_t turns = disk_.turns(); turns > 0; --turns) co_await Loop::current().schedule();
  }

  CrashDisk& disk_;
  const uint64_t life_;
};

Capabilities CrashDisk::everything_native() {
  Capabilities capabilities;
  capabilities.trim = Support::kNative;
  capabilities.write_zeroes = Support::kNative;
  capabilities.fast_zero = true;
  capabilities.fua = Support::kNative;
  capabilities.extents = Support::kNative;
  return capabilities;
}

std::unique_ptr<Device> CrashDisk::open() {
  const std::lock_guard lock(mutex_);
  return std::make_unique<CrashDevice>(*this, life_);
}

uint64_t CrashDisk::turns() {
  const std::lock_guard lock(mutex_);
  return rng_.below(4);
}

void CrashDisk::apply(SparseImage& image, const Change& change, ByteRange part) {
  if (change.data.empty()) {
    image.zero(part);
  } else {
    const Bytes data(change.data);
    image.write(part.offset, data.subspan(part.offset - change.range.offset, part.length));
  }
}

bool CrashDisk::read(uint64_t life, uint64_t offset, MutableBytes data) {
  const std::lock_guard lock(mutex_);
  if (life != life_) return false;
  present_.read(offset, data);
  return true;
}

bool CrashDisk::change(uint64_t life, Change change) {
  const std::lock_guard lock(mutex_);
  if (life != life_) return false;
  change.number = ++changes_made_;
  apply(present_, change, change.range);
  changes_.push_back(std::move(change));
  return true;
}

std::optional<uint64_t> CrashDisk::begin_flush(uint64_t life) {
  const std::lock_guard lock(mutex_);
  if (life != life_) return std::nullopt;
  return changes_made_;
}

bool CrashDisk::end_flush(uint64_t life, uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (life != life_) return false;
  for (Change& change : changes_) {
    const bool own = change.loop == &Loop::current();
    if (change.number <= number && (own || !options_.flush_covers_own_loop_only)) {
      change.durable = true;
    }
  }
  // In order, and only from the start: what is durable must stay on top of what came before it.
  const auto first_volatile =
      std::ranges::find_if(changes_, [](const Change& change) { return !change.durable; });
  for (auto change = changes_.begin(); change != first_volatile; ++change) {
    apply(durable_, *change, change->range);
  }
  changes_.erase(changes_.begin(), first_volatile);
  return true;
}

std::vector<Extent> CrashDisk::extents(uint64_t life, ByteRange range, size_t extents_max) {
  const std::lock_guard lock(mutex_);
  std::vector<Extent> found;
  if (life != life_) return found;
  const uint64_t block = options_.block_size;
  for (uint64_t at = range.offset; at < range.end(); at += block) {
    const ByteRange part(at, block);
    const bool zero = present_.first_nonzero(part) == part.end();
    if (!found.empty() && found.back().zero == zero) {
      found.back().length += block;
    } else if (found.size() == extents_max) {
      break;
    } else {
      found.push_back({.length = block, .hole = zero, .zero = zero});
    }
  }
  return found;
}

void CrashDisk::crash() {
  const std::lock_guard lock(mutex_);
  for (const Change& change : changes_) {
    const bool torn = rng_.one_in(3);
    const bool kept = rng_.one_in(2);
    for (uint64_t at = change.range.offset; at < change.range.end();) {
      const uint64_t end = std::min((at / kSector + 1) * kSector, change.range.end());
      const bool lands = change.durable || (torn ? rng_.one_in(2) : kept);
      if (lands) apply(durable_, change, ByteRange(at, end - at));
      at = end;
    }
  }
  changes_.clear();
  present_ = durable_;
  ++life_;
}

}  // namespace usbd::testing
