// SPDX-License-Identifier: Apache-2.0
//
// The faults. Most strike only now and then: a fault that always struck would be found by any test.

#include "conformance/broken_device.h"

#include <algorithm>
#include <array>
#include <coroutine>
#include <cstring>
#include <map>
#include <vector>

#include "base/random.h"
#include "usbd/loop.h"

namespace usbd::testing {
namespace {

constexpr uint64_t kBlock = 512;
/// A fault strikes once in so many calls.
constexpr uint64_t kRarely = 60;

struct NeverResumed {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  void await_resume() const noexcept {}
};

class BrokenDevice final : public Device {
 public:
  BrokenDevice(std::unique_ptr<Device> below, DeviceFault fault, uint64_t seed)
      : below_(std::move(below)), fault_(fault), rng_(seed) {}

  [[nodiscard]] std::string name() const override { return "broken: " + describe(fault_); }
  [[nodiscard]] Geometry geometry() const override { return below_->geometry(); }
  [[nodiscard]] Capabilities capabilities() const override { return below_->capabilities(); }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    if (strikes(DeviceFault::kHangs)) co_await NeverResumed{};
    if (strikes(DeviceFault::kReadsNothingOnError)) co_return Result<void>();
    if (strikes(DeviceFault::kFailsNowAndThen)) co_return Errc::kIo;
    if (strikes(DeviceFault::kReadsOldDataAfterOverwrite) && old_.size() == kBlock &&
        offset <= old_offset_ && old_offset_ + kBlock <= offset + data.size()) {
      USBD_CO_TRY_VOID(co_await below_->read(offset, data));
      std::memcpy(data.data() + (old_offset_ - offset), old_.data(), kBlock);
      co_return Result<void>();
    }
    USBD_CO_TRY_VOID(co_await below_->read(place(offset, data.size()), data));
    if (strikes(DeviceFault::kReadsShifted)) std::ranges::rotate(data, data.begin() + 1);
    co_return Result<void>();
  }

  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    if (strikes(DeviceFault::kDropsWrites)) co_return Result<void>();
    if (strikes(DeviceFault::kWrongError)) co_return Errc::kAgain;
    if (fault_ == DeviceFault::kFuaIgnored) flags.fua = false;
    if (fault_ == DeviceFault::kLosesNeighboursInBlock) co_return co_await write_page(offset, data);
    if (strikes(DeviceFault::kMisplacesWrites) && offset >= kBlock) offset -= kBlock;
    if (strikes(DeviceFault::kWritesHalf)) {
      data = data.first((data.size() / kBlock + 1) / 2 * kBlock);
    }
    std::vector<std::byte> replaced;
    if (fault_ == DeviceFault::kSharesBlocksThatBeginAlike) data = share(data, replaced);
    if (fault_ == DeviceFault::kReadsOldDataAfterOverwrite && rng_.one_in(8)) {
      std::vector<std::byte> old(kBlock);
      USBD_CO_TRY_VOID(co_await below_->read(offset, old));
      old_ = std::move(old);
      old_offset_ = offset;
    }
    co_return co_await below_->write(place(offset, data.size()), data, flags);
  }

  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override {
    if (strikes(DeviceFault::kTrimKeepsData)) co_return Result<void>();
    if (fault_ == DeviceFault::kTrimFuaIgnored) flags.fua = false;
    if (strikes(DeviceFault::kTrimTakesNeighbours) && range.end() < geometry().size) {
      range.length += kBlock;
    }
    co_return co_await below_->trim(range, flags);
  }

  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override {
    if (fault_ == DeviceFault::kZeroesRefuseNoHole && flags.no_hole) co_return Errc::kInvalid;
    if (strikes(DeviceFault::kZeroesForgetTail) && range.length > kBlock) range.length -= kBlock;
    co_return co_await below_->write_zeroes(range, flags);
  }

  Task<Result<void>> flush() override {
    if (strikes(DeviceFault::kFlushIgnored)) co_return Result<void>();
    co_return co_await below_->flush();
  }

  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override {
    USBD_CO_TRY(std::vector<Extent> found, co_await below_->extents(range, extents_max));
    if (fault_ == DeviceFault::kExtentsOffByOne) shift_a_border(found);
    if (strikes(DeviceFault::kExtentsStale)) {
      found = {Extent{.length = range.length, .hole = true, .zero = true}};
    }
    if (strikes(DeviceFault::kExtentsEmpty)) found.front().length = 0;
    if (strikes(DeviceFault::kExtentsNotMerged) && found.front().length > kBlock &&
        found.size() < extents_max) {
      Extent first = found.front();
      first.length = kBlock;
      found.front().length -= kBlock;
      found.insert(found.begin(), first);
    }
    co_return found;
  }

  Task<Result<void>> close() override { return below_->close(); }

 private:
  bool strikes(DeviceFault fault) { return fault == fault_ && rng_.one_in(kRarely); }

  [[nodiscard]] uint64_t place(uint64_t offset, uint64_t length) const {
    if (fault_ != DeviceFault::kCutsOffsetsTo32Bits) return offset;
    return std::min(offset & UINT32_MAX, geometry().size - length);
  }

  static void shift_a_border(std::vector<Extent>& found) {
    for (size_t i = 0; i + 1 < found.size(); ++i) {
      if (!found[i].zero || found[i + 1].length <= kBlock) continue;
      found[i].length += kBlock;
      found[i + 1].length -= kBlock;
      return;
    }
  }

  /// Changes a part of a page by reading and writing all of it, holding no lock.
  Task<Result<void>> write_page(uint64_t offset, Bytes data) {
    constexpr uint64_t kPage = 4096;
    const uint64_t begin = offset / kPage * kPage;
    const uint64_t end =
        std::min(geometry().size, (offset + data.size() + kPage - 1) / kPage * kPage);
    std::vector<std::byte> page(end - begin);
    if (page.size() > geometry().max_io) co_return co_await below_->write(offset, data, {});
    USBD_CO_TRY_VOID(co_await below_->read(begin, page));
    std::memcpy(page.data() + (offset - begin), data.data(), data.size());
    const WriteFlags flags{.fua = true};
    co_return co_await below_->write(begin, page, flags);
  }

  /// Takes blocks whose first bytes it has seen for the block that it saw.
  Bytes share(Bytes data, std::vector<std::byte>& replaced) {
    replaced.assign(data.begin(), data.end());
    for (size_t at = 0; at + kBlock <= replaced.size(); at += kBlock) {
      std::array<std::byte, 2> key{replaced[at], replaced[at + 1]};
      const std::vector<std::byte> block(replaced.begin() + static_cast<ptrdiff_t>(at),
                                         replaced.begin() + static_cast<ptrdiff_t>(at + kBlock));
      const auto [seen, is_new] = blocks_.try_emplace(key, block);
      if (!is_new) std::ranges::copy(seen->second, replaced.begin() + static_cast<ptrdiff_t>(at));
    }
    return replaced;
  }

  std::unique_ptr<Device> below_;
  const DeviceFault fault_;
  SeededRng rng_;
  std::vector<std::byte> old_;
  uint64_t old_offset_ = 0;
  std::map<std::array<std::byte, 2>, std::vector<std::byte>> blocks_;
};

}  // namespace

std::string describe(DeviceFault fault) {
  switch (fault) {
    case DeviceFault::kDropsWrites:
      return "a write is dropped";
    case DeviceFault::kWritesHalf:
      return "half of a write is done";
    case DeviceFault::kMisplacesWrites:
      return "a write lands a block too early";
    case DeviceFault::kCutsOffsetsTo32Bits:
      return "offsets are cut to 32 bits";
    case DeviceFault::kSharesBlocksThatBeginAlike:
      return "blocks that begin alike are taken for one";
    case DeviceFault::kLosesNeighboursInBlock:
      return "neighbours in a page overwrite each other";
    case DeviceFault::kReadsNothingOnError:
      return "a failed read succeeds with whatever is in the buffer";
    case DeviceFault::kReadsOldDataAfterOverwrite:
      return "a read finds what was overwritten";
    case DeviceFault::kReadsShifted:
      return "a read is shifted by a byte";
    case DeviceFault::kTrimKeepsData:
      return "a trim leaves the data";
    case DeviceFault::kTrimTakesNeighbours:
      return "a trim takes a block too many";
    case DeviceFault::kZeroesForgetTail:
      return "a zeroing forgets its last block";
    case DeviceFault::kZeroesRefuseNoHole:
      return "a zeroing without a hole is refused";
    case DeviceFault::kFuaIgnored:
      return "FUA of writes is ignored";
    case DeviceFault::kTrimFuaIgnored:
      return "FUA of trims is ignored";
    case DeviceFault::kFlushIgnored:
      return "a flush is ignored";
    case DeviceFault::kExtentsOffByOne:
      return "a hole is reported a block too long";
    case DeviceFault::kExtentsStale:
      return "data is reported as a hole";
    case DeviceFault::kExtentsEmpty:
      return "an extent is empty";
    case DeviceFault::kExtentsNotMerged:
      return "a hole is reported in two parts";
    case DeviceFault::kFailsNowAndThen:
      return "a read fails";
    case DeviceFault::kWrongError:
      return "a write says EAGAIN";
    case DeviceFault::kHangs:
      return "a read never ends";
  }
  return "?";
}

std::unique_ptr<Device> make_broken_device(std::unique_ptr<Device> below, DeviceFault fault,
                                           uint64_t seed) {
  return std::make_unique<BrokenDevice>(std::move(below), fault, seed);
}

}  // namespace usbd::testing
