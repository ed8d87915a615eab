// SPDX-License-Identifier: Apache-2.0
//
// A KernelFile's requests: whole transfers out of the short ones that the kernel makes, and errno
// values turned into the few errors that a BlockFile has.

#include "async/kernel_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/limits.h"

namespace usbd {
namespace {

bool aligned(uint64_t value, uint32_t alignment) {
  return (value & (alignment - 1)) == 0;
}

/// The error that stands for a system call's, without its text.
Errc errc_of(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Errc::kNoSpace;
    case EROFS:
    case EPERM:
      return Errc::kReadOnly;
    case ENOMEM:
      return Errc::kNoMemory;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
    case ENODEV:
      return Errc::kNotSupported;
    default:
      return Errc::kIo;
  }
}

}  // namespace

KernelFile::KernelFile(const Options& options)
    : path_(options.path),
      read_only_(options.read_only),
      direct_(options.direct),
      unlocked_(options.unlocked),
      nowait_reads_(!options.direct),
      nowait_writes_(!options.direct && !options.read_only) {
  USBD_ASSERT(read_only_ || !unlocked_);
}

KernelFile::~KernelFile() {
  for (const int fd : fua_idle_) ::close(fd);
  if (fd_ >= 0) ::close(fd_);
}

Error KernelFile::describe(const char* what, int number, ByteRange range) const {
  return Error(errc_of(number), fmt::format("{} of {} bytes at {} of {} failed ({})", what,
                                            range.length, range.offset, path_, strerror(number)));
}

FileIo KernelFile::make_io(FileIo::Kind kind, uint64_t offset, uint64_t length) const {
  FileIo io;
  io.kind = kind;
  io.fd = fd_;
  io.offset = offset;
  io.length = length;
  io.buffered = !direct_;
  return io;
}

bool KernelFile::memory_fits(const void* data) const {
  return !direct_ || aligned(reinterpret_cast<uintptr_t>(data), memory_alignment_);
}

Result<uint64_t> KernelFile::size() const {
  struct stat info{};
  uint64_t device_bytes = 0;
  const bool known =
      block_device_ ? ioctl(fd_, BLKGETSIZE64, &device_bytes) == 0 : fstat(fd_, &info) == 0;
  if (!known) return Error::from_errno(errno, "cannot find the size of " + path_);
  return block_device_ ? device_bytes : static_cast<uint64_t>(info.st_size);
}

Task<Result<void>> KernelFile::transfer(FileIo io) {
  Loop& loop = Loop::current();
  const char* const what = io.kind == FileIo::Kind::kRead ? "read" : "write";
  const uint64_t end = io.offset + io.length;
  unsigned retries = 0;
  while (io.offset < end) {
    io.length = std::min(end - io.offset, limits::kFileTransferMax);
    const int64_t result = co_await loop.perform(io);
    if (result == 0) {
      co_return Error(Errc::kIo, fmt::format("{} at {} of {} moved nothing: the file is shorter "
                                             "than it was",
                                             what, io.offset, path_));
    }
    // A direct transfer that stopped inside a block goes on from the block's start.
    const uint64_t moved = result < 0 ? 0 : static_cast<uint64_t>(result) & ~(block_size_ - 1ULL);
    if (moved > 0) {
      io.offset += moved;
      io.data = static_cast<std::byte*>(io.data) + moved;
      retries = 0;
      continue;
    }
    const int number = result < 0 ? static_cast<int>(-result) : EAGAIN;
    const bool again = number == EINTR || number == EAGAIN;
    if (!again || ++retries > limits::kFileRetriesMax) {
      co_return describe(what, number, ByteRange(io.offset, end - io.offset));
    }
  }
  co_return Result<void>();
}

Task<Result<void>> KernelFile::read(uint64_t offset, MutableBytes data) {
  USBD_ASSERT(aligned(offset | data.size(), block_size_));
  if (!memory_fits(data.data())) return read_through_buffer(offset, data);
  FileIo io = make_io(FileIo::Kind::kRead, offset, data.size());
  io.data = data.data();
  return transfer(io);
}

Task<Result<void>> KernelFile::write(uint64_t offset, Bytes data, WriteFlags flags) {
  USBD_ASSERT(aligned(offset | data.size(), block_size_));
  USBD_ASSERT(!read_only_);
  if (!memory_fits(data.data())) return write_through_buffer(offset, data, flags);
  FileIo io = make_io(FileIo::Kind::kWrite, offset, data.size());
  // The kernel only reads from it; FileIo has one pointer for both directions.
  io.data = const_cast<std::byte*>(data.data());
  return flags.fua ? transfer_synchronously(io) : transfer(io);
}

Result<int> KernelFile::take_fua_descriptor() {
  {
    const MutexLock lock(fua_mutex_);
    if (!fua_idle_.empty()) {
      const int fd = fua_idle_.back();
      fua_idle_.pop_back();
      return fd;
    }
  }
  return open_again();
}

void KernelFile::give_fua_descriptor(int fd, bool usable) {
  if (usable) {
    const MutexLock lock(fua_mutex_);
    if (fua_idle_.size() < limits::kFileFuaWritesMax) {
      fua_idle_.push_back(fd);
      return;
    }
  }
  ::close(fd);
}

Task<Result<void>> KernelFile::transfer_synchronously(FileIo io) {
  USBD_CO_TRY(const int fd, take_fua_descriptor());
  io.fd = fd;
  io.flags = RWF_DSYNC;
  const Result<void> result = co_await transfer(io);
  give_fua_descriptor(fd, result.has_value());
  co_return result;
}

Task<Result<void>> KernelFile::read_through_buffer(uint64_t offset, MutableBytes data) {
  const size_t size = std::min(data.size(), limits::kFileBounceBytes);
  const AlignedBuffer memory(size);
  while (!data.empty()) {
    const MutableBytes piece = memory.bytes().first(std::min(size, data.size()));
    USBD_CO_TRY_VOID(co_await read(offset, piece));
    std::memcpy(data.data(), piece.data(), piece.size());
    offset += piece.size();
    data = data.subspan(piece.size());
  }
  co_return Result<void>();
}

Task<Result<void>> KernelFile::write_through_buffer(uint64_t offset, Bytes data, WriteFlags flags) {
  const size_t size = std::min(data.size(), limits::kFileBounceBytes);
  const AlignedBuffer memory(size);
  while (!data.empty()) {
    const Bytes piece = memory.bytes().first(std::min(size, data.size()));
    std::memcpy(memory.bytes().data(), data.data(), piece.size());
    USBD_CO_TRY_VOID(co_await write(offset, piece, flags));
    offset += piece.size();
    data = data.subspan(piece.size());
  }
  co_return Result<void>();
}

Task<Result<void>> KernelFile::datasync() {
  Loop& loop = Loop::current();
  const FileIo io = make_io(FileIo::Kind::kDataSync, 0, 0);
  int64_t result = -EINTR;
  // Interrupted is not failed: no report of a lost write was taken by that.
  for (unsigned i = 0; result == -EINTR && i <= limits::kFileRetriesMax; ++i) {
    result = co_await loop.perform(io);
  }
  if (result >= 0) co_return Result<void>();
  co_return Error(Errc::kIo, fmt::format("sync of {} failed ({}): writes may be lost", path_,
                                         strerror(static_cast<int>(-result))));
}

Task<Result<void>> KernelFile::change_allocation(int mode, ByteRange range) {
  Loop& loop = Loop::current();
  unsigned retries = 0;
  while (!range.empty()) {
    const uint64_t piece_end =
        (range.offset / limits::kFileAllocationPiece + 1) * limits::kFileAllocationPiece;
    const uint64_t length = std::min(range.end(), piece_end) - range.offset;
    FileIo io = make_io(FileIo::Kind::kAllocate, range.offset, length);
    io.flags = mode;
    const int64_t result = co_await loop.perform(io);
    if ((result == -EINTR || result == -EAGAIN) && ++retries <= limits::kFileRetriesMax) continue;
    if (result < 0) co_return describe("allocation", static_cast<int>(-result), range);
    retries = 0;
    range = ByteRange(range.offset + length, range.length - length);
  }
  co_return Result<void>();
}

Task<Result<void>> KernelFile::allocate(ByteRange range) {
  return change_allocation(0, range);
}

Task<Result<void>> KernelFile::punch(ByteRange range) {
  return change_allocation(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range);
}

Task<Result<void>> KernelFile::zero(ByteRange range) {
  return change_allocation(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range);
}

Task<Result<void>> KernelFile::truncate(uint64_t size) {
  if (block_device_) {
    co_return Error(Errc::kNotSupported, path_ + " is a block device: its size is fixed");
  }
  if (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    co_return Error(errc_of(errno),
                    fmt::format("cannot make {} {} bytes long ({})", path_, size, strerror(errno)));
  }
  co_return Result<void>();
}

Result<uint64_t> KernelFile::seek(uint64_t offset, int whence) const {
  const off_t found = lseek(fd_, static_cast<off_t>(offset), whence);
  if (found >= 0) return static_cast<uint64_t>(found);
  if (errno == ENXIO) return size();  // nothing but a hole up to the end
  // EINVAL: a block device, or a filesystem that does not know.
  if (errno == EINVAL) return Error(Errc::kNotSupported, "no map of holes for " + path_);
  return Error(errc_of(errno),
               fmt::format("cannot find the holes of {} ({})", path_, strerror(errno)));
}

Task<Result<uint64_t>> KernelFile::next_data(uint64_t offset) {
  co_return seek(offset, SEEK_DATA);
}

Task<Result<uint64_t>> KernelFile::next_hole(uint64_t offset) {
  co_return seek(offset, SEEK_HOLE);
}

std::optional<Result<void>> KernelFile::try_read(uint64_t offset, MutableBytes data) {
  if (!nowait_reads_.load(std::memory_order_relaxed)) return std::nullopt;
  const iovec vector{data.data(), data.size()};
  const ssize_t moved = preadv2(fd_, &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  if (moved == static_cast<ssize_t>(data.size())) return Result<void>();
  if (moved < 0 && errno == EOPNOTSUPP) nowait_reads_.store(false, std::memory_order_relaxed);
  return std::nullopt;  // not cached, or an error that read() will meet and report
}

std::optional<Result<void>> KernelFile::try_write(uint64_t offset, Bytes data) {
  if (!nowait_writes_.load(std::memory_order_relaxed)) return std::nullopt;
  const iovec vector{const_cast<std::byte*>(data.data()), data.size()};
  const ssize_t moved = pwritev2(fd_, &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  if (moved == static_cast<ssize_t>(data.size())) return Result<void>();
  if (moved < 0 && errno == EOPNOTSUPP) nowait_writes_.store(false, std::memory_order_relaxed);
  return std::nullopt;
}

void KernelFile::forget_unwritten() {
  // Pages whose writing failed count as clean, and clean pages are what this drops.
  // Ref: linux mm/fadvise.c; of a block device the kernel drops them when the last one closes it.
  if (!direct_) ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
}

Task<Result<void>> KernelFile::close() {
  std::vector<int> descriptors;
  {
    const MutexLock lock(fua_mutex_);
    descriptors.swap(fua_idle_);
  }
  descriptors.push_back(std::exchange(fd_, -1));
  int number = 0;
  for (const int fd : descriptors) {
    if (fd >= 0 && ::close(fd) != 0) number = errno;
  }
  if (number != 0) {
    co_return Error(errc_of(number),
                    fmt::format("closing {} failed ({})", path_, strerror(number)));
  }
  co_return Result<void>();
}

}  // namespace usbd
