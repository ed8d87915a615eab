// SPDX-License-Identifier: Apache-2.0
//
// The system calls of a folder. Each operation is one function that waits for the disk, made on a
// thread of the pool.

#include "async/kernel_folder.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"

namespace usbd {
namespace {

bool is_component(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

/// Filesystems need not say in a directory of what kind its entries are.
bool is_regular(int directory, const dirent& entry) {
  if (entry.d_type != DT_UNKNOWN) return entry.d_type == DT_REG;
  struct stat info{};
  return fstatat(directory, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
}

}  // namespace

Result<std::unique_ptr<KernelFolder>> KernelFolder::open_directory(std::string path,
                                                                   WorkerPool& pool) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    const int number = errno;
    return Error::from_errno(number, "cannot open the directory " + path);
  }
  return std::unique_ptr<KernelFolder>(new KernelFolder(std::move(path), fd, pool));
}

KernelFolder::KernelFolder(std::string path, int fd, WorkerPool& pool)
    : path_(std::move(path)), fd_(fd), pool_(pool) {}

KernelFolder::~KernelFolder() {
  ::close(fd_);
}

Error KernelFolder::cannot(const std::string& what) const {
  const int number = errno;
  return Error::from_errno(number, fmt::format("cannot {} in the directory {}", what, path_));
}

Result<void> KernelFolder::sync_directory() const {
  if (fsync(fd_) == 0) return {};
  const int number = errno;
  return Error::from_errno(number, fmt::format("cannot sync the directory {}: what was changed in "
                                               "it may not survive a power cut",
                                               path_));
}

// --- files
// ----------------------------------------------------------------------------------------

Result<void> KernelFolder::check_path() const {
  struct stat opened{};
  struct stat named{};
  if (fstat(fd_, &opened) != 0 || stat(path_.c_str(), &named) != 0) return cannot("find a file");
  if (opened.st_dev == named.st_dev && opened.st_ino == named.st_ino) return {};
  return Error(Errc::kIo, path_ + " is another directory now than when it was opened");
}

Task<Result<std::unique_ptr<KernelFile>>> KernelFolder::open_file(
    KernelFile::Options options) const {
  Result<std::unique_ptr<KernelFile>> file = co_await KernelFile::open(options);
  if (file || !options.direct || !file.error().is(Errc::kInvalid)) co_return std::move(file);
  options.direct = false;
  Result<std::unique_ptr<KernelFile>> cached = co_await KernelFile::open(options);
  if (cached) log::info("{}: the page cache is used instead", file.error().context());
  co_return std::move(cached);
}

Task<Result<void>> KernelFolder::make_durable(KernelFile& file) {
  USBD_CO_TRY_VOID(co_await file.datasync());
  const auto sync = [this] { return sync_directory(); };
  co_return co_await pool_.run(sync);
}

Task<Result<std::unique_ptr<BlockFile>>> KernelFolder::open(std::string name, OpenHow how) {
  USBD_ASSERT(is_component(name));
  USBD_CO_TRY_VOID(check_path());
  KernelFile::Options options{.path = fmt::format("{}/{}", path_, name),
                              .read_only = how.read_only,
                              .direct = how.direct,
                              .create = how.create,
                              .new_size = how.new_size,
                              .lock_wait = how.lock_wait,
                              .unlocked = how.unlocked};
  USBD_CO_TRY(std::unique_ptr<KernelFile> file, co_await open_file(std::move(options)));
  // KernelFile syncs the names of files that it gives a size; an empty one has a name too.
  if (how.create != CreatePolicy::kNever && !how.read_only) {
    const Result<void> durable = co_await make_durable(*file);
    if (!durable) co_return durable.error();
  }
  co_return std::unique_ptr<BlockFile>(std::move(file));
}

// --- names
// ----------------------------------------------------------------------------------------

Result<void> KernelFolder::rename_and_sync(const std::string& from, const std::string& to) const {
  if (renameat(fd_, from.c_str(), fd_, to.c_str()) != 0) {
    return cannot(fmt::format("rename {} to {}", from, to));
  }
  return sync_directory();
}

Task<Result<void>> KernelFolder::rename(std::string from, std::string to) {
  USBD_ASSERT(is_component(from));
  USBD_ASSERT(is_component(to));
  const auto work = [this, &from, &to] { return rename_and_sync(from, to); };
  co_return co_await pool_.run(work);
}

Result<void> KernelFolder::remove_and_sync(const std::string& name) const {
  if (unlinkat(fd_, name.c_str(), 0) != 0 && errno != ENOENT) return cannot("remove " + name);
  // Also if there was none: whoever removed it may not have come to the sync.
  return sync_directory();
}

Task<Result<void>> KernelFolder::remove(std::string name) {
  USBD_ASSERT(is_component(name));
  const auto work = [this, &name] { return remove_and_sync(name); };
  co_return co_await pool_.run(work);
}

Result<std::vector<std::string>> KernelFolder::read_names() const {
  // Of its own: a directory that is read has a position.
  const int fd = openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return cannot("list the files");
  const std::unique_ptr<DIR, CloseDirectory> directory(fdopendir(fd));
  if (!directory) {
    const Error error = cannot("list the files");
    ::close(fd);
    return error;
  }
  std::vector<std::string> names;
  errno = 0;
  uint64_t entries = 0;
  while (const dirent* const entry = readdir(directory.get())) {
    if (++entries > limits::kFolderEntriesMax) {
      return Error(
          Errc::kOverflow,
          fmt::format("{} has more than {} entries; give the volume a directory of its own", path_,
                      limits::kFolderEntriesMax));
    }
    if (is_regular(fd, *entry)) names.emplace_back(entry->d_name);
    errno = 0;
  }
  if (errno != 0) return cannot("list the files");
  std::ranges::sort(names);
  return names;
}

Task<Result<std::vector<std::string>>> KernelFolder::list() {
  const auto work = [this] { return read_names(); };
  co_return co_await pool_.run(work);
}

}  // namespace usbd
