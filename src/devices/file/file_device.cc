// SPDX-License-Identifier: Apache-2.0
//
// A FileDevice's requests: thin on purpose. Whole transfers and errno values are BlockFile's work,
// ranges and overlaps core's.

#include "devices/file/file_device.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "usbd/loop.h"

namespace usbd {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t round_down(uint64_t value, uint64_t unit) {
  return value / unit * unit;
}
uint64_t round_up(uint64_t value, uint64_t unit) {
  return round_down(value + unit - 1, unit);
}

/// Counts one in for its life.
class Held {
 public:
  explicit Held(std::atomic<unsigned>& count) : count_(count) { ++count_; }
  ~Held() { --count_; }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  std::atomic<unsigned>& count_;
};

Result<void> check_size(const FileDevice::Options& options, const KernelFile& file,
                        uint64_t wanted) {
  USBD_TRY(const uint64_t found, file.size());
  if (found == 0) {
    return Error(Errc::kInvalid, file.name() + " is empty: it holds no volume");
  }
  const bool same = found == wanted || found == options.size;
  if (options.size_is_explicit && !same) {
    return Error(Errc::kInvalid,
                 fmt::format("{} holds {} bytes, but {} were asked for: ask for no size, or for "
                             "that one, or name another file",
                             file.name(), found, options.size));
  }
  return {};
}

}  // namespace

FileDevice::FileDevice(std::unique_ptr<BlockFile> file, Traits traits)
    : file_(std::move(file)), traits_(std::move(traits)), syncs_(*file_) {}

Task<Result<std::unique_ptr<FileDevice>>> FileDevice::open(Options options) {
  const uint64_t wanted = round_up(options.size, options.logical_block_size);
  if (wanted < options.size) co_return Error(Errc::kInvalid, "the size of the volume is too large");
  KernelFile::Options how{.path = options.path,
                          .read_only = options.read_only,
                          .direct = options.direct,
                          .create = options.create,
                          .new_size = options.create == CreatePolicy::kNever ? 0 : wanted,
                          .lock_wait = options.lock_wait};
  USBD_CO_TRY(std::unique_ptr<KernelFile> file, co_await KernelFile::open(std::move(how)));
  if (file->created()) log::info("made {}: {} bytes, all of them a hole", options.path, wanted);
  USBD_CO_TRY_VOID(check_size(options, *file, wanted));
  Traits traits{.read_only = options.read_only,
                .logical_block_size = options.logical_block_size,
                .punches = file->has_write_zeroes(),
                .probe_punch = !file->is_block_device(),
                .id = file->id()};
  co_return co_await make(std::move(file), std::move(traits));
}

Task<Result<std::unique_ptr<FileDevice>>> FileDevice::make(std::unique_ptr<BlockFile> file,
                                                           Traits traits) {
  std::unique_ptr<FileDevice> device(new FileDevice(std::move(file), std::move(traits)));
  USBD_CO_TRY_VOID(co_await device->find_out());
  co_return std::move(device);
}

Task<Result<void>> FileDevice::find_out() {
  USBD_CO_TRY(const uint64_t bytes, file_->size());
  const uint32_t unit = std::max(traits_.logical_block_size, file_->block_size());
  geometry_.size = round_down(bytes, unit);
  geometry_.block_size = file_->block_size();
  geometry_.logical_block_size = traits_.logical_block_size;
  geometry_.preferred_io = std::max<uint32_t>(unit, kPage);
  if (geometry_.size == 0) {
    co_return Error(Errc::kInvalid, fmt::format("{} has {} bytes, less than one block of {}",
                                                file_->name(), bytes, unit));
  }
  if (geometry_.size < bytes) {
    log::warning("{} has {} bytes; the last {} do not fill a block of {} and are not served",
                 file_->name(), bytes, bytes - geometry_.size, unit);
  }
  const bool writable = !traits_.read_only;
  bool punches = writable && traits_.punches;
  if (punches && traits_.probe_punch) {
    const uint64_t beyond = round_up(bytes, std::max<uint64_t>(kPage, file_->block_size()));
    const ByteRange nothing(beyond, std::max<uint64_t>(kPage, file_->block_size()));
    punches = (co_await file_->punch(nothing)).has_value();
  }
  const bool maps = (co_await file_->next_data(0)).has_value();
  capabilities_.trim = punches ? Support::kNative : Support::kNone;
  // Where it turns out that it cannot, write_zeroes() says so and core writes.
  capabilities_.write_zeroes = writable ? Support::kNative : Support::kEmulated;
  capabilities_.fast_zero = punches;
  capabilities_.fua = Support::kNative;
  capabilities_.extents = maps ? Support::kNative : Support::kEmulated;
  capabilities_.volatile_cache = writable;
  capabilities_.read_only = traits_.read_only;
  co_return Result<void>();
}

void FileDevice::check(ByteRange range) const {
  USBD_ASSERT(range.offset <= geometry_.size && range.length <= geometry_.size - range.offset);
  USBD_ASSERT(((range.offset | range.length) & (geometry_.block_size - 1)) == 0);
}

Task<Result<void>> FileDevice::read(uint64_t offset, MutableBytes data) {
  check(ByteRange(offset, data.size()));
  return file_->read(offset, data);
}

Task<Result<void>> FileDevice::write(uint64_t offset, Bytes data, WriteFlags flags) {
  check(ByteRange(offset, data.size()));
  USBD_ASSERT(!traits_.read_only);
  return flags.fua ? write_fua(offset, data) : file_->write(offset, data, flags);
}

Task<Result<void>> FileDevice::write_fua(uint64_t offset, Bytes data) {
  if (syncs_.failed()) co_return syncs_.lost();
  const Held held(fua_writes_);
  const WriteFlags flags{.fua = fua_writes_.load() <= limits::kFileFuaWritesMax};
  USBD_CO_TRY_VOID(co_await file_->write(offset, data, flags));
  co_return co_await sync_if(!flags.fua);
}

Task<Result<void>> FileDevice::sync_if(bool fua) {
  if (!fua) co_return Result<void>();
  co_return co_await syncs_.sync();
}

Task<Result<void>> FileDevice::flush() {
  return syncs_.sync();
}

Task<Result<void>> FileDevice::free_range(ByteRange range) {
  const Result<void> punched = co_await file_->punch(range);
  if (punched || !punched.error().is(Errc::kNotSupported)) co_return punched;
  // Some block devices find out only now that they cannot; zeros must be read all the same.
  co_return co_await file_->zero(range);
}

Task<Result<void>> FileDevice::trim(ByteRange range, WriteFlags flags) {
  check(range);
  USBD_ASSERT(!traits_.read_only);
  if (flags.fua && syncs_.failed()) co_return syncs_.lost();
  USBD_CO_TRY_VOID(co_await free_range(range));
  co_return co_await sync_if(flags.fua);
}

Task<Result<void>> FileDevice::write_zeroes(ByteRange range, ZeroFlags flags) {
  check(range);
  USBD_ASSERT(!traits_.read_only);
  if (flags.fast_only && !capabilities_.fast_zero) co_return Errc::kNotSupported;
  if (flags.fua && syncs_.failed()) co_return syncs_.lost();
  const bool frees = !flags.no_hole && capabilities_.trim == Support::kNative;
  Task<Result<void>> zeroing = frees ? free_range(range) : file_->zero(range);
  USBD_CO_TRY_VOID(co_await zeroing);
  co_return co_await sync_if(flags.fua);
}

Task<Result<std::vector<Extent>>> FileDevice::extents(ByteRange range, size_t extents_max) {
  check(range);
  USBD_ASSERT(extents_max > 0);
  std::vector<Extent> found;
  uint64_t offset = range.offset;
  for (unsigned seeks = 1; offset < range.end() && found.size() < extents_max; ++seeks) {
    USBD_CO_TRY(const uint64_t data, co_await file_->next_data(offset));
    const bool hole = data > offset;
    uint64_t stop = data;
    if (!hole) {
      USBD_CO_TRY(stop, co_await file_->next_hole(offset));
    }
    // The file may change between two seeks, or end early: what is left is then called data.
    stop = std::min(stop > offset ? stop : range.end(), range.end());
    if (!found.empty() && found.back().hole == hole) {
      found.back().length += stop - offset;
    } else {
      found.push_back(Extent{.length = stop - offset, .hole = hole, .zero = hole});
    }
    offset = stop;
    if (seeks % limits::kFileSeeksPerTurn == 0) co_await Loop::current().schedule();
  }
  co_return found;
}

std::optional<Result<void>> FileDevice::try_read(uint64_t offset, MutableBytes data) {
  check(ByteRange(offset, data.size()));
  return file_->try_read(offset, data);
}

std::optional<Result<void>> FileDevice::try_write(uint64_t offset, Bytes data, WriteFlags flags) {
  check(ByteRange(offset, data.size()));
  USBD_ASSERT(!traits_.read_only);
  if (flags.fua) return std::nullopt;
  return file_->try_write(offset, data);
}

Task<Result<void>> FileDevice::close() {
  Result<void> result;
  if (!traits_.read_only) result = co_await syncs_.sync();
  if (syncs_.failed()) file_->forget_unwritten();
  const Result<void> closed = co_await file_->close();
  co_return result ? closed : result;
}

}  // namespace usbd
