// SPDX-License-Identifier: Apache-2.0
//
// System calls on a block device, spread over threads.

#include "conformance/node_subject.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include <fmt/core.h>

#include "base/aligned_buffer.h"

namespace usbd::testing {
namespace {

constexpr unsigned kThreads = 16;
/// A request this long is still one system call. Units: bytes.
constexpr uint32_t kPayloadMax = 4U << 20;

/// The errno value of a system call's result; a transfer that ended early counts as beyond the end.
int error_of(ssize_t result, uint64_t wanted) {
  if (result < 0) return errno;
  return static_cast<uint64_t>(result) == wanted ? 0 : EINVAL;
}

}  // namespace

Result<std::unique_ptr<NodeSubject>> NodeSubject::open(std::string path, bool trim_zeroes) {
  std::unique_ptr<NodeSubject> subject(new NodeSubject(std::move(path)));
  subject->traits_.trim_zeroes = trim_zeroes;
  USBD_TRY_VOID(subject->open_node());
  USBD_TRY_VOID(subject->ask_geometry());
  subject->start_threads();
  return subject;
}

NodeSubject::~NodeSubject() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Result<void> NodeSubject::open_node() {
  fd_.reset(::open(path_.c_str(), O_RDWR | O_DIRECT | O_EXCL | O_CLOEXEC));
  if (!fd_) return Error::from_errno(errno, fmt::format("cannot open {}", path_));
  struct stat status{};
  if (::fstat(fd_.get(), &status) != 0) return Error::from_errno(errno, path_);
  if (!S_ISBLK(status.st_mode)) {
    return Error(Errc::kInvalid, fmt::format("{} is no block device", path_));
  }
  return {};
}

Result<void> NodeSubject::ask_geometry() {
  uint64_t size = 0;
  int sector = 0;
  int read_only = 0;
  if (::ioctl(fd_.get(), BLKGETSIZE64, &size) != 0 || ::ioctl(fd_.get(), BLKSSZGET, &sector) != 0 ||
      ::ioctl(fd_.get(), BLKROGET, &read_only) != 0) {
    return Error::from_errno(errno, fmt::format("cannot ask for the size of {}", path_));
  }
  traits_.name = path_;
  traits_.size = size;
  traits_.block_size = static_cast<uint32_t>(sector);
  traits_.payload_max = kPayloadMax;
  traits_.connections = kThreads;
  traits_.read_only = read_only != 0;
  traits_.can_extents = false;
  traits_.can_cache = false;
  // The kernel cuts requests into parts, which may then meet others in any order.
  traits_.orders_overlaps = false;
  traits_.exact_errors = false;
  traits_.refuses_across_end = false;
  traits_.refuses_empty = false;
  traits_.refuses_oversized = false;
  traits_.can_reopen = true;
  return ask_discard();
}

/// Whether the node can discard; asked of sysfs, since trying would change data.
Result<void> NodeSubject::ask_discard() {
  struct stat status{};
  if (::fstat(fd_.get(), &status) != 0) return Error::from_errno(errno, path_);
  std::ifstream file(fmt::format("/sys/dev/block/{}:{}/queue/discard_max_bytes",
                                 major(status.st_rdev), minor(status.st_rdev)));
  uint64_t discard_max = 0;
  file >> discard_max;
  traits_.can_trim = discard_max > 0;
  return {};
}

void NodeSubject::start_threads() {
  for (unsigned i = 0; i < kThreads; ++i) threads_.emplace_back([this] { work(); });
}

void NodeSubject::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || next_ < batch_.size(); });
    if (stopping_) return;
    Operation& op = batch_[next_++];
    lock.unlock();
    carry_out(op);
    lock.lock();
    if (--left_ == 0) changed_.notify_all();
  }
}

Result<void> NodeSubject::execute(std::span<Operation> batch) {
  std::unique_lock lock(mutex_);
  batch_ = batch;
  next_ = 0;
  left_ = batch.size();
  changed_.notify_all();
  changed_.wait(lock, [this] { return left_ == 0; });
  batch_ = {};
  next_ = 0;
  return {};
}

void NodeSubject::carry_out(Operation& op) const {
  std::array<uint64_t, 2> range{op.offset, op.length};
  if (op.length > UINT64_MAX - op.offset) {
    op.error = EINVAL;  // some kernels add the two up without looking, which is not ours to test
    return;
  }
  switch (op.kind) {
    case OpKind::kRead:
      op.error = read(op);
      break;
    case OpKind::kWrite:
      op.error = write(op);
      break;
    case OpKind::kTrim:
      op.error = ::ioctl(fd_.get(), BLKDISCARD, range.data()) == 0 ? 0 : errno;
      break;
    case OpKind::kWriteZeroes:
      op.error = ::ioctl(fd_.get(), BLKZEROOUT, range.data()) == 0 ? 0 : errno;
      break;
    case OpKind::kFlush:
      op.error = ::fdatasync(fd_.get()) == 0 ? 0 : errno;
      break;
    case OpKind::kCache:
      op.error = 0;
      break;
    case OpKind::kExtents:
      op.error = EOPNOTSUPP;
      break;
  }
  const bool changes_without_fua =
      op.fua && op.error == 0 && (op.kind == OpKind::kTrim || op.kind == OpKind::kWriteZeroes);
  if (changes_without_fua && ::fdatasync(fd_.get()) != 0) op.error = errno;
}

int NodeSubject::read(Operation& op) const {
  const AlignedBuffer buffer(op.length);
  const iovec part{buffer.bytes().data(), op.length};
  const ssize_t got = ::preadv2(fd_.get(), &part, 1, static_cast<off_t>(op.offset), 0);
  const int error = error_of(got, op.length);
  if (error == 0) std::memcpy(op.data.data(), buffer.bytes().data(), op.length);
  return error;
}

int NodeSubject::write(const Operation& op) const {
  const AlignedBuffer buffer(op.length);
  std::memcpy(buffer.bytes().data(), op.data.data(), op.length);
  const iovec part{buffer.bytes().data(), op.length};
  const int flags = op.fua ? RWF_DSYNC : 0;
  return error_of(::pwritev2(fd_.get(), &part, 1, static_cast<off_t>(op.offset), flags), op.length);
}

Result<void> NodeSubject::reopen() {
  fd_.reset();
  return open_node();
}

}  // namespace usbd::testing
