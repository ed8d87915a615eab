// SPDX-License-Identifier: Apache-2.0
//
// FaultDisk keeps two images of itself, what reads see and what a power cut leaves, and the set of
// pages in which they may differ. Every call of a FaultFile first yields to the loop, so that calls
// overlap as those of a real file do.

#include "async/fault_file.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/assert.h"
#include "usbd/loop.h"

namespace usbd::testing {

/// A FaultDisk's face as a BlockFile.
class FaultFile final : public BlockFile {
 public:
  explicit FaultFile(FaultDisk& disk) : disk_(disk), crashes_(disk.crashes_) {}

  [[nodiscard]] std::string name() const override { return "fault-disk"; }
  [[nodiscard]] uint32_t block_size() const override { return disk_.options_.block_size; }
  [[nodiscard]] Result<uint64_t> size() const override { return disk_.size_; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    check_aligned(ByteRange(offset, data.size()));
    co_await Loop::current().schedule();
    USBD_CO_TRY_VOID(begin(FileOp::kRead));
    if (offset + data.size() > disk_.size_) co_return Error(Errc::kIo, "read beyond the end");
    disk_.load(offset, data);
    co_return Result<void>();
  }

  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    check_aligned(ByteRange(offset, data.size()));
    co_await Loop::current().schedule();
    if (dead()) co_return Error(Errc::kIo, "the power is off");
    const std::optional<Fault> fault = disk_.meet(FileOp::kWrite);
    if (fault && !fault->partial) co_return Error(fault->error, "injected");
    const size_t landed = fault ? disk_.rng_.below(data.size() + 1) : data.size();
    if (!disk_.has_room_for(ByteRange(offset, landed))) co_return Errc::kNoSpace;
    disk_.store(offset, data.first(landed));
    if (fault) co_return Error(fault->error, "injected, with a part of the data written");
    if (flags.fua) sync_range(ByteRange(offset, data.size()));
    co_return Result<void>();
  }

  Task<Result<void>> datasync() override {
    // Only what has completed before now is covered.
    const std::map<uint64_t, uint64_t> covered = disk_.unsynced_;
    FaultDisk::Pages contents;
    for (const auto& [page, change] : covered) {
      const auto present = disk_.pages_.find(page);
      if (present != disk_.pages_.end()) contents.insert(*present);
    }
    const uint64_t size = disk_.size_;
    co_await Loop::current().schedule();
    if (dead()) co_return Error(Errc::kIo, "the power is off");
    const std::optional<Fault> fault = disk_.meet(FileOp::kSync);
    for (const auto& [page, change] : covered) {
      const auto dirty = disk_.unsynced_.find(page);
      if (dirty != disk_.unsynced_.end() && dirty->second == change) disk_.unsynced_.erase(dirty);
      // A synchronous write may have made a newer content durable meanwhile.
      if (disk_.durable_change_[page] >= change) continue;
      if (fault) {
        disk_.forgotten_[page] = change;
      } else {
        disk_.make_durable(page, contents, change);
      }
    }
    if (fault) co_return Error(fault->error, "injected");
    disk_.durable_size_ = size;
    co_return Result<void>();
  }

  Task<Result<void>> allocate(ByteRange range) override {
    check_aligned(range);
    co_await Loop::current().schedule();
    USBD_CO_TRY_VOID(begin(FileOp::kAllocate));
    if (!disk_.has_room_for(range)) co_return Errc::kNoSpace;
    disk_.size_ = std::max(disk_.size_, range.end());
    for (uint64_t page = range.offset / FaultDisk::kPage; page * FaultDisk::kPage < range.end();
         ++page) {
      disk_.pages_.try_emplace(page);
    }
    co_return Result<void>();
  }

  Task<Result<void>> punch(ByteRange range) override {
    return clear(range, disk_.options_.punches, false);
  }
  Task<Result<void>> zero(ByteRange range) override {
    return clear(range, disk_.options_.zeroes, true);
  }

  Task<Result<void>> truncate(uint64_t size) override {
    co_await Loop::current().schedule();
    USBD_CO_TRY_VOID(begin(FileOp::kAllocate));
    if (size < disk_.size_) disk_.clear(ByteRange(size, disk_.size_ - size), false);
    disk_.size_ = size;
    co_return Result<void>();
  }

  Task<Result<uint64_t>> next_data(uint64_t offset) override { return next(offset, true); }
  Task<Result<uint64_t>> next_hole(uint64_t offset) override { return next(offset, false); }

  Task<Result<void>> close() override {
    co_await Loop::current().schedule();
    co_return Result<void>();
  }

 private:
  [[nodiscard]] bool dead() const { return crashes_ != disk_.crashes_; }

  Result<void> begin(FileOp op) {
    if (dead()) return Error(Errc::kIo, "the power is off");
    const std::optional<Fault> fault = disk_.meet(op);
    if (fault) return Error(fault->error, "injected");
    return {};
  }

  void check_aligned(ByteRange range) const {
    USBD_ASSERT(((range.offset | range.length) & (block_size() - 1)) == 0);
  }

  void sync_range(ByteRange range) {
    for (uint64_t page = range.offset / FaultDisk::kPage; page * FaultDisk::kPage < range.end();
         ++page) {
      disk_.make_durable(page, disk_.pages_, disk_.changes_);
      disk_.unsynced_.erase(page);
    }
    disk_.durable_size_ = std::max(disk_.durable_size_, std::min(range.end(), disk_.size_));
  }

  Task<Result<void>> clear(ByteRange range, bool supported, bool keep_allocated) {
    check_aligned(range);
    co_await Loop::current().schedule();
    USBD_CO_TRY_VOID(begin(FileOp::kAllocate));
    if (!supported) co_return Errc::kNotSupported;
    if (keep_allocated && !disk_.has_room_for(range)) co_return Errc::kNoSpace;
    disk_.clear(range, keep_allocated);
    co_return Result<void>();
  }

  Task<Result<uint64_t>> next(uint64_t offset, bool data) {
    co_await Loop::current().schedule();
    if (!disk_.options_.knows_holes) co_return Errc::kNotSupported;
    const Result<void> begun = begin(FileOp::kMap);
    if (!begun) co_return begun.error();
    while (offset < disk_.size_) {
      const uint64_t page = offset / FaultDisk::kPage;
      if (disk_.pages_.contains(page) == data) co_return offset;
      offset = (page + 1) * FaultDisk::kPage;
    }
    co_return disk_.size_;
  }

  void forget_unwritten() override {
    if (!dead()) disk_.forget_unwritten();
  }

  FaultDisk& disk_;
  const uint64_t crashes_;
};

FaultDisk::FaultDisk(Options options)
    : options_(options), rng_(options.seed), size_(options.size), durable_size_(options.size) {}

std::unique_ptr<BlockFile> FaultDisk::open() {
  return std::make_unique<FaultFile>(*this);
}

std::optional<Fault> FaultDisk::meet(FileOp op) {
  ++calls_[static_cast<size_t>(op)];
  for (Fault& fault : faults_) {
    if (fault.op != op || fault.count == 0) continue;
    if (fault.after > 0) {
      --fault.after;
      continue;
    }
    --fault.count;
    return fault;
  }
  return std::nullopt;
}

bool FaultDisk::has_room_for(ByteRange range) const {
  uint64_t wanted = pages_.size();
  for (uint64_t page = range.offset / kPage; page * kPage < range.end(); ++page) {
    if (!pages_.contains(page)) ++wanted;
  }
  return wanted <= options_.space / kPage;
}

void FaultDisk::load(uint64_t offset, MutableBytes data) const {
  while (!data.empty()) {
    const uint64_t within = offset % kPage;
    const size_t count = std::min<size_t>(data.size(), kPage - within);
    const auto page = pages_.find(offset / kPage);
    if (page == pages_.end()) {
      std::memset(data.data(), 0, count);
    } else {
      std::memcpy(data.data(), page->second.data() + within, count);
    }
    offset += count;
    data = data.subspan(count);
  }
}

void FaultDisk::store(uint64_t offset, Bytes data) {
  size_ = std::max(size_, offset + data.size());
  while (!data.empty()) {
    const uint64_t index = offset / kPage;
    const uint64_t within = offset % kPage;
    const size_t count = std::min<size_t>(data.size(), kPage - within);
    std::memcpy(pages_[index].data() + within, data.data(), count);
    unsynced_[index] = ++changes_;
    offset += count;
    data = data.subspan(count);
  }
}

void FaultDisk::clear(ByteRange range, bool keep_allocated) {
  while (!range.empty()) {
    const uint64_t index = range.offset / kPage;
    const uint64_t within = range.offset % kPage;
    const uint64_t count = std::min(range.length, kPage - within);
    if (count == kPage && !keep_allocated) {
      pages_.erase(index);
    } else if (keep_allocated || pages_.contains(index)) {
      std::memset(pages_[index].data() + within, 0, count);
    }
    unsynced_[index] = ++changes_;
    range = ByteRange(range.offset + count, range.length - count);
  }
}

void FaultDisk::make_durable(uint64_t index, const Pages& from, uint64_t change) {
  durable_change_[index] = change;
  const auto page = from.find(index);
  if (page == from.end()) {
    durable_.erase(index);
  } else {
    durable_[index] = page->second;
  }
  forgotten_.erase(index);
}

void FaultDisk::forget_unwritten() {
  for (auto page = forgotten_.begin(); page != forgotten_.end();) {
    const uint64_t index = page->first;
    ++page;
    if (unsynced_.contains(index)) continue;  // written again since: dirty, so it stays
    forgotten_.erase(index);
    const auto durable = durable_.find(index);
    if (durable == durable_.end()) {
      pages_.erase(index);
    } else {
      pages_[index] = durable->second;
    }
  }
}

void FaultDisk::crash_page(uint64_t index) {
  enum { kKept, kLost, kTorn, kFates };
  const uint64_t fate = rng_.below(kFates);
  if (fate == kLost) return;
  if (fate == kKept) {
    make_durable(index, pages_, changes_);
    return;
  }
  const auto written = pages_.find(index);
  Page& page = durable_[index];
  for (uint64_t start = 0; start < kPage; start += kSector) {
    if (rng_.one_in(2)) continue;
    if (written == pages_.end()) {
      std::memset(page.data() + start, 0, kSector);
    } else {
      std::memcpy(page.data() + start, written->second.data() + start, kSector);
    }
  }
}

void FaultDisk::crash() {
  for (const auto& [page, change] : unsynced_) crash_page(page);
  after_crash();
}

void FaultDisk::crash_losing_all() {
  after_crash();
}

void FaultDisk::after_crash() {
  pages_ = durable_;
  size_ = durable_size_;
  pages_.erase(pages_.lower_bound((size_ + kPage - 1) / kPage), pages_.end());
  unsynced_.clear();
  forgotten_.clear();
  ++crashes_;
}

}  // namespace usbd::testing
