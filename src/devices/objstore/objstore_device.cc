// SPDX-License-Identifier: Apache-2.0
//
// Blocks and parts of blocks; then what looks after the engine.

#include "devices/objstore/objstore_device.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/units.h"
#include "devices/objstore/journal_sealer.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t round_down(uint64_t bytes) {
  return bytes / kBlockBytes * kBlockBytes;
}

}  // namespace

// --- opening

ObjstoreDevice::ObjstoreDevice(Parts parts, VolumeOptions options)
    : parts_(std::move(parts)), options_(std::move(options)), home_(Loop::current()) {}

ObjstoreDevice::~ObjstoreDevice() = default;

Task<Result<std::unique_ptr<ObjstoreDevice>>> ObjstoreDevice::open(Parts parts,
                                                                   VolumeOptions options) {
  std::unique_ptr<ObjstoreDevice> device(new ObjstoreDevice(std::move(parts), std::move(options)));
  VolumeParts lent{.store = *device->parts_.store,
                   .folder = device->parts_.folder.get(),
                   .rng = *device->parts_.rng,
                   .key = device->parts_.key.bytes(),
                   .journal_sealer = {},
                   .workers = device->parts_.workers};
  if (!device->parts_.key.empty()) lent.journal_sealer = journal_sealers(lent.key);
  Result<std::unique_ptr<Volume>> volume = co_await Volume::open(std::move(lent), device->options_);
  if (!volume) {
    co_await device->parts_.store->close();
    co_return std::move(volume).error();
  }
  device->adopt(*std::move(volume));
  co_return std::move(device);
}

void ObjstoreDevice::adopt(std::unique_ptr<Volume> volume) {
  volume_ = std::move(volume);
  volume_id_ = volume_->head().volume;
  geometry_.size = volume_->size();
  geometry_.block_size = volume_->head().logical_block_size;
  geometry_.logical_block_size = volume_->head().logical_block_size;
  geometry_.preferred_io = kBlockBytes;
  if (!options_.read_only) scope_.spawn(watch());
}

Capabilities ObjstoreDevice::capabilities() const {
  const bool writable = !options_.read_only;
  Capabilities capabilities;
  capabilities.trim = writable ? Support::kNative : Support::kNone;
  capabilities.write_zeroes = writable ? Support::kNative : Support::kEmulated;
  capabilities.fast_zero = writable;
  capabilities.fua = Support::kNative;
  capabilities.extents = Support::kNative;
  capabilities.volatile_cache = writable;
  capabilities.read_only = options_.read_only;
  return capabilities;
}

// --- requests

void ObjstoreDevice::check(ByteRange range) const {
  USBD_ASSERT(range.offset <= geometry_.size && range.length <= geometry_.size - range.offset);
  USBD_ASSERT(((range.offset | range.length) & (geometry_.block_size - 1)) == 0);
}

ObjstoreDevice::Pieces ObjstoreDevice::take_apart(ByteRange range) const {
  Pieces pieces;
  const uint64_t first = round_down(range.offset + kBlockBytes - 1);
  if (first > range.offset) {
    pieces.before = ByteRange(range.offset, std::min(first, range.end()) - range.offset);
  }
  const uint64_t last = round_down(range.end());
  if (last > first) {
    pieces.whole = BlockRange(first / kBlockBytes, (last - first) / kBlockBytes);
  }
  if (last >= first && range.end() > last) pieces.after = ByteRange(last, range.end() - last);
  return pieces;
}

ByteRange ObjstoreDevice::bytes_of(uint64_t block) const {
  const uint64_t offset = block * kBlockBytes;
  return {offset, std::min<uint64_t>(kBlockBytes, geometry_.size - offset)};
}

Task<Result<void>> ObjstoreDevice::read(uint64_t offset, MutableBytes data) {
  const ByteRange range(offset, data.size());
  check(range);
  const Pieces pieces = take_apart(range);
  if (!pieces.before.empty()) {
    USBD_CO_TRY_VOID(co_await read_part(pieces.before, data.first(pieces.before.length)));
  }
  if (pieces.whole.count > 0) {
    const MutableBytes whole = data.subspan(pieces.before.length, pieces.whole.count * kBlockBytes);
    USBD_CO_TRY_VOID(co_await volume_->read(pieces.whole.first, whole));
  }
  if (!pieces.after.empty()) {
    USBD_CO_TRY_VOID(co_await read_part(pieces.after, data.last(pieces.after.length)));
  }
  co_return Result<void>();
}

std::optional<Result<void>> ObjstoreDevice::try_read(uint64_t offset, MutableBytes data) {
  check(ByteRange(offset, data.size()));
  if ((offset | data.size()) % kBlockBytes != 0) return std::nullopt;
  return volume_->try_read(offset / kBlockBytes, data);
}

Task<Result<void>> ObjstoreDevice::read_part(ByteRange part, MutableBytes data) {
  const AlignedBuffer buffer(kBlockBytes);
  const uint64_t block = part.offset / kBlockBytes;
  USBD_CO_TRY_VOID(co_await volume_->read(block, buffer.bytes()));
  std::memcpy(data.data(), buffer.bytes().data() + part.offset % kBlockBytes, part.length);
  co_return Result<void>();
}

Task<Result<void>> ObjstoreDevice::write(uint64_t offset, Bytes data, WriteFlags flags) {
  const ByteRange range(offset, data.size());
  check(range);
  USBD_ASSERT(!options_.read_only);
  const Pieces pieces = take_apart(range);
  if (!pieces.before.empty()) {
    USBD_CO_TRY_VOID(co_await modify_block(pieces.before, data.first(pieces.before.length)));
  }
  if (pieces.whole.count > 0) {
    const Bytes whole = data.subspan(pieces.before.length, pieces.whole.count * kBlockBytes);
    const Result<uint64_t> written = co_await volume_->write(pieces.whole.first, whole);
    if (!written) co_return written.error();
  }
  if (!pieces.after.empty()) {
    USBD_CO_TRY_VOID(co_await modify_block(pieces.after, data.last(pieces.after.length)));
  }
  co_return co_await flush_if(flags.fua);
}

Task<Result<void>> ObjstoreDevice::modify_block(ByteRange part, Bytes data) {
  const ByteRange held(round_down(part.offset), kBlockBytes);
  co_await locks_.acquire(held);
  const Result<void> modified = co_await modify_held_block(part, data);
  locks_.release(held);
  co_return modified;
}

Task<Result<void>> ObjstoreDevice::modify_held_block(ByteRange part, Bytes data) {
  const uint64_t block = part.offset / kBlockBytes;
  const AlignedBuffer buffer(kBlockBytes);
  if (part == bytes_of(block)) {
    std::memset(buffer.bytes().data(), 0, kBlockBytes);
  } else {
    USBD_CO_TRY_VOID(co_await volume_->read(block, buffer.bytes()));
  }
  std::byte* const target = buffer.bytes().data() + part.offset % kBlockBytes;
  if (data.empty()) {
    std::memset(target, 0, part.length);
  } else {
    std::memcpy(target, data.data(), part.length);
  }
  const Result<uint64_t> written = co_await volume_->write(block, buffer.bytes());
  if (!written) co_return written.error();
  co_return Result<void>();
}

Task<Result<void>> ObjstoreDevice::flush_if(bool fua) {
  if (!fua) co_return Result<void>();
  co_return co_await flush();
}

Task<Result<void>> ObjstoreDevice::flush() {
  if (options_.read_only) co_return Result<void>();
  co_return co_await volume_->flush();
}

Task<Result<void>> ObjstoreDevice::trim(ByteRange range, WriteFlags flags) {
  return clear(range, ExtentKind::kTrim, flags.fua);
}

Task<Result<void>> ObjstoreDevice::write_zeroes(ByteRange range, ZeroFlags flags) {
  return clear(range, ExtentKind::kZero, flags.fua);
}

Task<Result<void>> ObjstoreDevice::clear(ByteRange range, ExtentKind kind, bool fua) {
  check(range);
  USBD_ASSERT(!options_.read_only);
  Pieces pieces = take_apart(range);
  const bool has_last = !pieces.after.empty() && pieces.after.end() == geometry_.size;
  if (has_last) {  // all that the volume has of its last block
    if (pieces.whole.count == 0) pieces.whole.first = pieces.after.offset / kBlockBytes;
    ++pieces.whole.count;
    pieces.after = ByteRange();
  }
  if (pieces.whole.count > 0) {
    const Result<uint64_t> cleared = co_await volume_->clear(pieces.whole, kind);
    if (!cleared) co_return cleared.error();
  }
  if (!pieces.before.empty()) USBD_CO_TRY_VOID(co_await modify_block(pieces.before, {}));
  if (!pieces.after.empty()) USBD_CO_TRY_VOID(co_await modify_block(pieces.after, {}));
  co_return co_await flush_if(fua);
}

Task<Result<std::vector<usbd::Extent>>> ObjstoreDevice::extents(ByteRange range,
                                                                size_t extents_max) {
  check(range);
  USBD_ASSERT(extents_max > 0);
  std::vector<usbd::Extent> found;
  uint64_t at = range.offset;
  while (at < range.end() && found.size() < extents_max) {
    const uint64_t first = at / kBlockBytes;
    const uint64_t end = (range.end() + kBlockBytes - 1) / kBlockBytes;
    const BlockRange piece(first, std::min(end - first, limits::kExtentSearchBlocks));
    USBD_CO_TRY(const auto runs, co_await volume_->data_runs(piece));
    for (const auto& [blocks, is_data] : runs) {
      const uint64_t stop = std::min(blocks.end() * kBlockBytes, range.end());
      const bool hole = !is_data;
      if (!found.empty() && found.back().hole == hole) {
        found.back().length += stop - at;
      } else if (found.size() == extents_max) {
        co_return found;
      } else {
        found.push_back(usbd::Extent{.length = stop - at, .hole = hole, .zero = hole});
      }
      at = stop;
    }
    co_await Loop::current().schedule();  // others on this loop have their turn
  }
  co_return found;
}

// --- looking after the engine

Task<void> ObjstoreDevice::watch() {
  while (!watched_.stop_requested()) {
    look();
    co_await home_.sleep_for(limits::kVolumeWatchEvery, watched_.get_token());
  }
}

void ObjstoreDevice::look() {
  if (hurry_.stop_requested() && !given_up_) {
    given_up_ = true;
    volume_->abandon();
  }
  const VolumeState state = volume_->state();
  unpublished_bytes_ = state.unpublished_bytes;
  if (!state.journal_failure.empty() && !journal_failure_told_) {
    journal_failure_told_ = true;
    log::error(
        "{}: the journal has failed and takes nothing more: flushes fail until the volume is "
        "opened again: {}",
        name(), state.journal_failure);
  }
  if (state.fenced) tell_taken_over();
}

void ObjstoreDevice::tell_taken_over() {
  std::function<void()> function;
  {
    const MutexLock lock(mutex_);
    taken_over_ = true;
    function = std::exchange(on_taken_over_, {});
  }
  if (function) function();
}

void ObjstoreDevice::on_taken_over(std::function<void()> function) {
  {
    const MutexLock lock(mutex_);
    if (!taken_over_) {
      on_taken_over_ = std::move(function);
      return;
    }
  }
  function();
}

void ObjstoreDevice::hurry() {
  hurry_.request_stop();
}

Task<void> ObjstoreDevice::report_closing() {
  while (!closed_.stop_requested()) {
    co_await home_.sleep_for(limits::kPublishReportEvery, closed_.get_token());
    if (closed_.stop_requested()) break;
    const VolumeState state = volume_->state();
    unpublished_bytes_ = state.unpublished_bytes;
    log::info("{}: publishing before it stops: {} are left, the oldest written {} ago", name(),
              format_size(state.unpublished_bytes),
              format_duration(std::chrono::floor<std::chrono::seconds>(state.unpublished_age)));
  }
}

Task<Result<void>> ObjstoreDevice::close() {
  Loop& caller = Loop::current();
  co_await home_.schedule();
  const Result<void> closed = co_await close_at_home();
  co_await caller.schedule();
  co_return closed;
}

Task<Result<void>> ObjstoreDevice::close_at_home() {
  scope_.spawn(report_closing());
  Result<void> closed = co_await volume_->close(hurry_.get_token());
  watched_.request_stop();
  closed_.request_stop();
  co_await scope_.close();
  const VolumeState state = volume_->state();
  unpublished_bytes_ = state.unpublished_bytes;
  if (state.fenced) {
    ending_ = Ending::kTakenOver;
    tell_taken_over();
  } else if (!closed) {
    ending_ = Ending::kUnpublished;
  }
  co_await parts_.store->close();
  co_return closed;
}

}  // namespace usbd::objstore
