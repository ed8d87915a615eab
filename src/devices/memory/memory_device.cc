// SPDX-License-Identifier: Apache-2.0
//
// A MemoryDevice's requests. Nothing waits: what could take long (releasing or zeroing gigabytes)
// works in pieces and lets the loop do other work in between.

#include "devices/memory/memory_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <sys/mman.h>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/race_checking.h"
#include "usbd/loop.h"

namespace usbd {
namespace {

constexpr uint64_t kPage = PageMap::kPageBytes;
constexpr uint64_t kReleasePages = limits::kMemoryReleasePiece / kPage;
/// Ref: linux uapi mman-common.h, MADV_DONTNEED_LOCKED (since 5.18); not in Debian 12's libc.
constexpr int kAdviseDontNeedLocked = 24;

uint64_t page_down(uint64_t offset) {
  return offset / kPage;
}
uint64_t page_up(uint64_t offset) {
  return (offset + kPage - 1) / kPage;
}

}  // namespace

MemoryDevice::MemoryDevice(Options options) : options_(options) {}

MemoryDevice::~MemoryDevice() {
  unmap();
}

Result<std::unique_ptr<MemoryDevice>> MemoryDevice::open(Options options) {
  if (options.size == 0 || options.size > kSizeMax) {
    return Error(Errc::kInvalid,
                 fmt::format("a memory device of {} bytes cannot be made: from 1 byte to {} TiB",
                             options.size, kSizeMax >> 40U));
  }
  std::unique_ptr<MemoryDevice> device(new MemoryDevice(options));
  USBD_TRY_VOID(device->reserve());
  return device;
}

Result<void> MemoryDevice::reserve() {
  const std::string hint = fmt::format(
      "cannot reserve {} bytes of address space for the memory device (limits: ulimit -v, "
      "vm.overcommit_memory=2)",
      options_.size);
  mapped_bytes_ = page_up(options_.size) * kPage;
  void* const memory = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno(errno, hint);
  memory_ = static_cast<std::byte*>(memory);
  ignore_races_of_clients(MutableBytes(memory_, mapped_bytes_));
  // A huge page would take 2 MiB for one block written. A core dump would write out the device.
  madvise(memory_, mapped_bytes_, MADV_NOHUGEPAGE);
  madvise(memory_, mapped_bytes_, MADV_DONTDUMP);
  Result<std::unique_ptr<PageMap>> map = PageMap::create(page_up(options_.size));
  if (!map) return Error(Errc::kNoMemory, hint);
  written_ = *std::move(map);
  return {};
}

void MemoryDevice::unmap() {
  if (memory_ != nullptr) munmap(memory_, mapped_bytes_);
  memory_ = nullptr;
}

uint64_t MemoryDevice::resident_bytes() const {
  return written_->count() * kPage;
}

Geometry MemoryDevice::geometry() const {
  Geometry geometry;
  geometry.size = options_.size;
  geometry.logical_block_size = options_.logical_block_size;
  return geometry;
}

Capabilities MemoryDevice::capabilities() const {
  Capabilities capabilities;
  capabilities.trim = Support::kNative;
  capabilities.write_zeroes = Support::kNative;
  capabilities.fast_zero = true;
  capabilities.fua = Support::kNative;
  capabilities.extents = Support::kNative;
  // Nothing is safer after a flush than before, so nobody need send one; flush() still works.
  capabilities.volatile_cache = false;
  capabilities.ephemeral = true;
  capabilities.never_blocks = true;
  return capabilities;
}

void MemoryDevice::check(ByteRange range) const {
  USBD_ASSERT(memory_ != nullptr);
  USBD_ASSERT(range.offset <= options_.size && range.length <= options_.size - range.offset);
}

void MemoryDevice::load(uint64_t offset, MutableBytes data) const {
  const ByteRange range(offset, data.size());
  check(range);
  const uint64_t end = page_up(range.end());
  if (written_->next_set(page_down(offset), end) == end) {
    std::memset(data.data(), 0, data.size());  // reading the mapping would take page tables
  } else {
    std::memcpy(data.data(), memory_ + offset, data.size());
  }
}

void MemoryDevice::store(uint64_t offset, Bytes data) {
  check(ByteRange(offset, data.size()));
  std::memcpy(memory_ + offset, data.data(), data.size());
  direct_written(ByteRange(offset, data.size()));
}

MutableBytes MemoryDevice::direct(ByteRange range) {
  check(range);
  return {memory_ + range.offset, range.length};
}

void MemoryDevice::direct_written(ByteRange range) {
  check(range);
  if (!range.empty()) written_->set(page_down(range.offset), page_up(range.end()));
}

std::optional<Result<void>> MemoryDevice::try_read(uint64_t offset, MutableBytes data) {
  load(offset, data);
  return Result<void>();
}

std::optional<Result<void>> MemoryDevice::try_write(uint64_t offset, Bytes data,
                                                    WriteFlags /*flags*/) {
  store(offset, data);
  return Result<void>();
}

std::optional<Result<void>> MemoryDevice::try_flush() {
  return Result<void>();
}

Task<Result<void>> MemoryDevice::read(uint64_t offset, MutableBytes data) {
  load(offset, data);
  co_return Result<void>();
}

Task<Result<void>> MemoryDevice::write(uint64_t offset, Bytes data, WriteFlags /*flags*/) {
  store(offset, data);
  co_return Result<void>();
}

Task<Result<void>> MemoryDevice::flush() {
  co_return Result<void>();
}

Task<Result<void>> MemoryDevice::trim(ByteRange range, WriteFlags /*flags*/) {
  check(range);
  return release(range);
}

Task<Result<void>> MemoryDevice::write_zeroes(ByteRange range, ZeroFlags flags) {
  check(range);
  return flags.no_hole ? fill_with_zeros(range) : release(range);
}

void MemoryDevice::zero_if_written(ByteRange range) {
  if (range.empty()) return;
  const uint64_t page = page_down(range.offset);
  if (written_->next_set(page, page + 1) == page) {
    std::memset(memory_ + range.offset, 0, range.length);
  }
}

void MemoryDevice::give_back(uint64_t first, uint64_t end) {
  written_->clear(first, end);
  std::byte* const start = memory_ + first * kPage;
  const size_t length = (end - first) * kPage;
  if (madvise(start, length, MADV_DONTNEED) == 0) return;
  // Memory that is locked is not given back by that, nor on old kernels by this.
  if (madvise(start, length, kAdviseDontNeedLocked) == 0) return;
  std::memset(start, 0, length);
  written_->set(first, end);
}

Task<Result<void>> MemoryDevice::release(ByteRange range) {
  const uint64_t first = page_up(range.offset);
  // The last page of an odd-sized device ends beyond it; nobody else has the rest.
  const uint64_t end = range.end() == options_.size ? page_up(range.end()) : page_down(range.end());
  if (first >= end) {
    const uint64_t cut = std::min(first * kPage, range.end());
    zero_if_written(ByteRange(range.offset, cut - range.offset));
    zero_if_written(ByteRange(cut, range.end() - cut));
    co_return Result<void>();
  }
  zero_if_written(ByteRange(range.offset, first * kPage - range.offset));
  if (end * kPage < range.end()) zero_if_written(ByteRange(end * kPage, range.end() - end * kPage));
  uint64_t page = written_->next_set(first, end);
  while (page < end) {
    const uint64_t piece_end = std::min(end, page + kReleasePages);
    give_back(page, piece_end);
    page = written_->next_set(piece_end, end);
    if (page < end) co_await Loop::current().schedule();
  }
  co_return Result<void>();
}

void MemoryDevice::zero_in_place(ByteRange range) {
  std::memset(memory_ + range.offset, 0, range.length);
  direct_written(range);
}

Task<Result<void>> MemoryDevice::fill_with_zeros(ByteRange range) {
  while (range.length > limits::kMemoryZeroPiece) {
    zero_in_place(ByteRange(range.offset, limits::kMemoryZeroPiece));
    range =
        ByteRange(range.offset + limits::kMemoryZeroPiece, range.length - limits::kMemoryZeroPiece);
    co_await Loop::current().schedule();
  }
  zero_in_place(range);
  co_return Result<void>();
}

Task<Result<std::vector<Extent>>> MemoryDevice::extents(ByteRange range, size_t extents_max) {
  check(range);
  USBD_ASSERT(extents_max > 0);
  std::vector<Extent> found;
  const uint64_t end_page = page_up(range.end());
  uint64_t offset = range.offset;
  while (offset < range.end() && found.size() < extents_max) {
    const uint64_t page = page_down(offset);
    const uint64_t next_written = written_->next_set(page, end_page);
    const bool hole = next_written > page;
    // Another thread may change the page in between; a run is never empty all the same.
    const uint64_t run_end =
        hole ? next_written : std::max(page + 1, written_->next_clear(page, end_page));
    const uint64_t stop = std::min(run_end * kPage, range.end());
    if (!found.empty() && found.back().hole == hole) {
      found.back().length += stop - offset;
    } else {
      found.push_back(Extent{.length = stop - offset, .hole = hole, .zero = hole});
    }
    offset = stop;
  }
  co_return found;
}

Task<Result<void>> MemoryDevice::close() {
  unmap();
  co_return Result<void>();
}

}  // namespace usbd
