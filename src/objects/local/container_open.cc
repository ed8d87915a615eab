// SPDX-License-Identifier: Apache-2.0
//
// Opening a container, its hidden folder, the lock in it, and what dead writers left there.

#include <cerrno>
#include <cstring>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "objects/local/local_container.h"

namespace usbd::objects {
namespace {

constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;
constexpr const char* kHidden = ".usbd";
constexpr const char* kHiddenInCapitals = ".USBD";
constexpr const char* kLockFile = "lock";
constexpr std::string_view kStagedStart = "put-";

FileCalls& system_calls() {
  static FileCalls calls;
  return calls;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// Removes the file of a writer if its writer is dead.
bool remove_if_left_over(int folder, const char* name) {
  const UniqueFd file(openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  return file && flock(file.get(), LOCK_EX | LOCK_NB) == 0 && unlinkat(folder, name, 0) == 0;
}

}  // namespace

UniqueFd enter_folder(int parent, const std::string& folder) {
  return UniqueFd(openat(parent, folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

LocalContainer::LocalContainer(const Options& options)
    : label_(fmt::format("local://{}{}{}", options.path, options.path.ends_with('/') ? "" : "/",
                         options.name)),
      calls_(options.calls != nullptr ? *options.calls : system_calls()) {}

Result<std::unique_ptr<LocalContainer>> LocalContainer::open(const Options& options) {
  if (!is_object_name(options.name) || options.name.find('/') != std::string::npos ||
      options.name.size() > NAME_MAX) {
    return Error(Errc::kInvalid,
                 fmt::format("\"{}\" cannot be the name of a container: it is made of letters, "
                             "digits and . _ -, begins and ends with no dot, and has 1 to {} bytes",
                             options.name, NAME_MAX));
  }
  std::unique_ptr<LocalContainer> container(new LocalContainer(options));
  USBD_TRY_VOID(container->open_folders(options));
  if (options.read_only) return container;
  USBD_TRY_VOID(container->refuse_caseless());
  USBD_TRY(const std::optional<UniqueFd> lock, container->try_lock());
  container->remove_left_over();
  return container;
}

Result<void> LocalContainer::open_folders(const Options& options) {
  const UniqueFd parent(::open(options.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent) {
    const int number = errno;
    const char* const advice =
        number == ENOENT ? "; make it first, or mount what belongs there" : "";
    return Error(number == ENOTDIR ? Errc::kInvalid : store_code(number),
                 fmt::format("cannot open the directory {}{}", options.path, advice));
  }
  container_ = enter_folder(parent.get(), options.name);
  if (!container_ && errno == ENOENT && options.create && !options.read_only) {
    if (mkdirat(parent.get(), options.name.c_str(), kFolderMode) != 0 && errno != EEXIST) {
      return failed(errno, "the container", "make it");
    }
    container_ = enter_folder(parent.get(), options.name);
  }
  if (!container_) {
    const int number = errno;
    if (number != ENOTDIR && number != ELOOP) {
      return Error(store_code(number), fmt::format("cannot open {}", label_));
    }
    return Error(Errc::kInvalid, label_ + " is no folder (symbolic links are not followed)");
  }
  if (options.read_only) return {};
  // Whoever made it may not have lived to do this.
  if (calls_.fsync(parent.get()) != 0) return failed(errno, "the container", "sync its directory");
  return {};
}

Result<void> LocalContainer::refuse_caseless() const {
  USBD_TRY(const UniqueFd hidden, hidden_folder());
  struct stat wanted{};
  struct stat other{};
  if (fstat(hidden.get(), &wanted) == 0 &&
      fstatat(container_.get(), kHiddenInCapitals, &other, AT_SYMLINK_NOFOLLOW) == 0 &&
      same_file(wanted, other)) {
    return Error(Errc::kNotSupported,
                 label_ +
                     " is on a filesystem that takes \"a\" and \"A\" for the same name, so "
                     "one object could replace another; use a different filesystem");
  }
  return {};
}

Result<UniqueFd> LocalContainer::hidden_folder() const {
  UniqueFd hidden = enter_folder(container_.get(), kHidden);
  if (!hidden && errno == ENOENT) {
    if (mkdirat(container_.get(), kHidden, kFolderMode) != 0 && errno != EEXIST) {
      return failed(errno, kHidden, "make this folder");
    }
    hidden = enter_folder(container_.get(), kHidden);
  }
  if (!hidden) return failed(errno, kHidden, "open this folder");
  return hidden;
}

Result<std::optional<UniqueFd>> LocalContainer::try_lock() const {
  USBD_TRY(const UniqueFd hidden, hidden_folder());
  UniqueFd file(openat(hidden.get(), kLockFile,
                       O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, kFileMode));
  if (!file) return failed(errno, ".usbd/lock", "open it");
  if (calls_.flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK || errno == EINTR) return std::optional<UniqueFd>();
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENOLCK || errno == EINVAL) {
      return Error(Errc::kNotSupported, label_ + " is on a filesystem without locks (flock)");
    }
    return failed(errno, ".usbd/lock", "lock it");
  }
  // Somebody may have removed it in between: then others lock another one.
  struct stat mine{};
  struct stat there{};
  if (fstat(file.get(), &mine) != 0 ||
      fstatat(hidden.get(), kLockFile, &there, AT_SYMLINK_NOFOLLOW) != 0 ||
      !same_file(mine, there)) {
    return std::optional<UniqueFd>();
  }
  return std::optional<UniqueFd>(std::move(file));
}

void LocalContainer::remove_left_over() const {
  const Result<UniqueFd> hidden = hidden_folder();
  if (!hidden) return;
  const int listed = openat(hidden->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (listed < 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(listed), closedir);
  if (!entries) {
    ::close(listed);
    return;
  }
  uint64_t removed = 0;
  for (const dirent* entry = readdir(entries.get()); entry != nullptr;
       entry = readdir(entries.get())) {
    if (!std::string_view(entry->d_name).starts_with(kStagedStart)) continue;
    if (remove_if_left_over(hidden->get(), entry->d_name)) ++removed;
  }
  if (removed > 0) {
    log::info("{}: removed {} unfinished files of processes that have died", label_, removed);
  }
}

Result<UniqueFd> LocalContainer::make_staging_file(StagedPut& staged,
                                                   const std::string& name) const {
  for (unsigned tries = 0; tries < limits::kStagingTries; ++tries) {
    UniqueFd file(openat(staged.hidden_folder.get(), staged.file_name.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kFileMode));
    if (!file) return failed(errno, name, "make a temporary file for it");
    // A process that opens the container now may get the lock first, and removes the file.
    struct stat info{};
    if (flock(file.get(), LOCK_EX | LOCK_NB) == 0 && fstat(file.get(), &info) == 0 &&
        info.st_nlink > 0) {
      return file;
    }
    unlinkat(staged.hidden_folder.get(), staged.file_name.c_str(), 0);
  }
  return refused(Errc::kAgain, name, "its temporary file was taken away again and again");
}

Result<void> LocalContainer::stage(StagedPut& staged, const std::string& name, Bytes data,
                                   const PutNonce& nonce, const CallClock& clock) {
  USBD_TRY(staged.hidden_folder, hidden_folder());
  staged.file_name = std::string(kStagedStart) + tag_of(nonce);
  USBD_TRY(staged.file, make_staging_file(staged, name));
  const ObjectTrailer trailer = make_trailer(data, nonce);
  Result<void> written = write_all(staged.file.get(), data, name, clock);
  if (written) written = write_all(staged.file.get(), wire_bytes(trailer), name, clock);
  if (written && calls_.fdatasync(staged.file.get()) != 0) {
    written = failed(errno, name, "sync its contents");
  }
  if (!written) discard(staged);
  return written;
}

void LocalContainer::discard(StagedPut& staged) {
  if (staged.file) unlinkat(staged.hidden_folder.get(), staged.file_name.c_str(), 0);
  staged.file.reset();
}

}  // namespace usbd::objects
