// SPDX-License-Identifier: Apache-2.0
//
// How a KernelFile is opened: made if it may be, locked, and asked for its alignment and identity.
// The order matters. The lock is taken before anything is read from or written to the file, so of
// two daemons that start together one gets it, whichever made it. A new file is made empty, locked,
// and then sized; a crash in between leaves an empty file, which the next start completes.

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/kernel_file.h"
#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/limits.h"

namespace usbd {
namespace {

constexpr mode_t kNewFileMode = 0600;
/// Good for O_DIRECT on every filesystem that does not say what it needs.
constexpr uint32_t kDirectAlignmentGuess = 4096;
/// Ref: BlockingDevice::block_size and Geometry::block_size.
constexpr uint32_t kDirectBlockMax = 65536;

Error cannot(const char* what, const std::string& path) {
  const int number = errno;
  return Error::from_errno(number, fmt::format("cannot {} {}", what, path));
}

Result<void> sync_directory_of(const std::string& path) {
  std::filesystem::path directory = std::filesystem::path(path).parent_path();
  if (directory.empty()) directory = ".";
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return cannot("open the directory of", path);
  const int number = fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (number != 0) return Error::from_errno(number, "cannot sync the directory of " + path);
  return {};
}

/// The process that holds a lock on the file, if /proc/locks says so; else 0.
/// Ref: proc(5), /proc/locks.
pid_t lock_holder(const struct stat& info) {
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    int pid = 0;
    unsigned major_number = 0;
    unsigned minor_number = 0;
    uint64_t inode = 0;
    const int fields = std::sscanf(line.c_str(), "%*s FLOCK %*s %*s %d %x:%x:%" SCNu64, &pid,
                                   &major_number, &minor_number, &inode);
    const bool same = fields == 4 && inode == info.st_ino && major_number == major(info.st_dev) &&
                      minor_number == minor(info.st_dev);
    if (same && pid > 0) return pid;
  }
  return 0;
}

/// Ref: linux Documentation/ABI/stable/sysfs-block, queue/write_zeroes_max_bytes. A partition's
/// queue is its disk's.
bool device_has_write_zeroes(dev_t device) {
  for (const char* where : {"queue", "../queue"}) {
    std::ifstream file(fmt::format("/sys/dev/block/{}:{}/{}/write_zeroes_max_bytes", major(device),
                                   minor(device), where));
    uint64_t bytes = 0;
    if (file >> bytes) return bytes > 0;
  }
  return false;
}

}  // namespace

Task<Result<std::unique_ptr<KernelFile>>> KernelFile::open(Options options) {
  Loop& loop = Loop::current();
  const Nanos deadline = loop.now() + options.lock_wait;
  std::unique_ptr<KernelFile> file;
  for (;;) {
    file.reset(new KernelFile(options));
    const Result<void> opened = file->open_and_lock(options.create);
    if (opened) break;
    // A process that was killed holds its files until its last request has come back.
    if (!opened.error().is(Errc::kBusy) || loop.now() >= deadline) co_return opened.error();
    co_await loop.sleep_for(limits::kFileLockRetryEvery);
  }
  const Result<void> prepared = file->prepare(options.new_size);
  if (!prepared) {
    if (file->made_here_) unlink(options.path.c_str());
    co_return prepared.error();
  }
  co_return std::move(file);
}

Result<bool> KernelFile::exists(CreatePolicy create) const {
  struct stat info{};
  if (stat(path_.c_str(), &info) != 0) {
    if (errno != ENOENT) return cannot("open", path_);
    if (create == CreatePolicy::kNever || read_only_) {
      return Error(Errc::kNotFound, path_ + " is to be opened, not made, and is not there");
    }
    return false;
  }
  if (create == CreatePolicy::kOnly) {
    return Error(Errc::kExists, path_ + " is to be made, but is there already");
  }
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return Error(Errc::kInvalid, path_ + " is neither a regular file nor a block device");
  }
  return true;
}

Result<void> KernelFile::open_and_lock(CreatePolicy create) {
  USBD_TRY(const bool there, exists(create));
  int flags = O_CLOEXEC | (read_only_ ? O_RDONLY : O_RDWR) | (direct_ ? O_DIRECT : 0);
  if (!there) flags |= O_CREAT | O_EXCL;
  struct stat info{};
  const bool is_block = there && stat(path_.c_str(), &info) == 0 && S_ISBLK(info.st_mode);
  if (is_block && !read_only_) flags |= O_EXCL;  // claims it: ref open(2), O_EXCL without O_CREAT
  fd_ = ::open(path_.c_str(), flags, kNewFileMode);
  if (fd_ < 0) return open_failed(there);
  made_here_ = !there;
  if (fstat(fd_, &info) != 0) return cannot("look at", path_);
  block_device_ = S_ISBLK(info.st_mode);
  if (!block_device_ && !S_ISREG(info.st_mode)) {
    return Error(Errc::kInvalid, path_ + " is neither a regular file nor a block device");
  }
  if (unlocked_) return {};
  if (flock(fd_, (read_only_ ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return {};
  made_here_ = false;  // whoever locked it first has it now
  if (errno != EWOULDBLOCK) return cannot("lock", path_);
  const pid_t holder = lock_holder(info);
  return Error(Errc::kBusy,
               fmt::format("{} is in use by {}; stop that first, or use another file", path_,
                           holder > 0 ? fmt::format("process {}", holder) : "another process"));
}

Error KernelFile::open_failed(bool existing) const {
  const int number = errno;
  if (number == EINVAL && direct_) {
    // The filesystem makes the file before it refuses the flag.
    if (!existing) unlink(path_.c_str());
    return Error(Errc::kInvalid, "the filesystem of " + path_ + " has no direct I/O (O_DIRECT)");
  }
  if (number == EBUSY) {
    return Error(Errc::kBusy, path_ + " is in use: mounted, part of an array, or served already");
  }
  if (number == EEXIST) return Error(Errc::kBusy, path_ + " is being made by another process");
  return Error::from_errno(number, fmt::format("cannot {} {}", existing ? "open" : "make", path_));
}

Result<void> KernelFile::prepare(uint64_t new_size) {
  find_identity();
  if (!read_only_) {
    USBD_TRY(const int fd, open_again());
    give_fua_descriptor(fd, true);
  }
  USBD_TRY_VOID(find_alignment());
  write_zeroes_ = true;
  if (block_device_) {
    struct stat info{};
    write_zeroes_ = fstat(fd_, &info) == 0 && device_has_write_zeroes(info.st_rdev);
    return {};
  }
  USBD_TRY(const uint64_t bytes, size());
  if (bytes > 0 || new_size == 0 || read_only_) return {};
  created_ = true;
  return fill_new(new_size);
}

Result<void> KernelFile::fill_new(uint64_t bytes) const {
  if (bytes > INT64_MAX || ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
    if (bytes > INT64_MAX || errno == EFBIG) {
      return Error(Errc::kInvalid,
                   fmt::format("{} cannot be {} bytes long: its filesystem has no files that large",
                               path_, bytes));
    }
    return cannot("size", path_);
  }
  if (fsync(fd_) != 0) return cannot("sync", path_);
  return sync_directory_of(path_);
}

Result<int> KernelFile::open_again() const {
  const int flags = O_WRONLY | O_CLOEXEC | (direct_ ? O_DIRECT : 0);
  int fd = ::open(fmt::format("/proc/self/fd/{}", fd_).c_str(), flags);
  if (fd < 0) fd = ::open(path_.c_str(), flags);
  if (fd < 0) return cannot("open for synchronous writes", path_);
  struct stat first{};
  struct stat second{};
  const bool same = fstat(fd_, &first) == 0 && fstat(fd, &second) == 0 &&
                    first.st_dev == second.st_dev && first.st_ino == second.st_ino;
  if (same) return fd;
  ::close(fd);
  return Error(Errc::kIo, path_ + " is another file now than when it was opened");
}

Result<void> KernelFile::find_alignment() {
  int sector = 1;
  if (block_device_ && ioctl(fd_, BLKSSZGET, &sector) != 0) {
    return cannot("find the block size of", path_);
  }
  // Block devices take allocation commands in whole sectors only, so everything else too.
  block_size_ = static_cast<uint32_t>(sector);
  if (!direct_) return {};
  memory_alignment_ = block_size_ = std::max(block_size_, kDirectAlignmentGuess);
#ifdef STATX_DIOALIGN
  struct statx info{};
  if (statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0) {
    if (info.stx_dio_offset_align == 0) {
      return Error(Errc::kInvalid, path_ + " has no direct I/O (O_DIRECT) here");
    }
    block_size_ = info.stx_dio_offset_align;
    memory_alignment_ = info.stx_dio_mem_align;
  }
#endif
  if (block_size_ > kDirectBlockMax || memory_alignment_ > AlignedBuffer::kAlignment) {
    return Error(Errc::kInvalid,
                 fmt::format("{} wants direct I/O in blocks of {} bytes, memory aligned to {}; {} "
                             "and {} at most are supported",
                             path_, block_size_, memory_alignment_, kDirectBlockMax,
                             AlignedBuffer::kAlignment));
  }
  return {};
}

void KernelFile::find_identity() {
  struct statx info{};
  // What an old kernel leaves out stays zero: the rest still tells files apart.
  const bool known = statx(fd_, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &info) == 0;
  if (!known) {
    id_ = "file-" + path_;
  } else if (block_device_) {
    id_ = fmt::format("block-{}:{}", info.stx_rdev_major, info.stx_rdev_minor);
  } else {
    id_ = fmt::format("file-{}:{}-{}-{}.{:09}", info.stx_dev_major, info.stx_dev_minor,
                      info.stx_ino, info.stx_btime.tv_sec, info.stx_btime.tv_nsec);
  }
}

}  // namespace usbd
