// SPDX-License-Identifier: Apache-2.0
//
// Objects of a container: placed, read, removed.

#include "objects/local/local_container.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/limits.h"
#include "objects/part_range.h"

namespace usbd::objects {
namespace {

constexpr mode_t kFolderMode = 0700;

constexpr int kReadFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

/// Opens the file of an object without following a link anywhere. Returns -1 if that fails, for
/// whatever reason: systems before Linux 5.6 do not have it. Ref: openat2(2).
UniqueFd open_beneath(int container, const ObjectPath& path) {
  std::string way;
  for (const std::string& folder : path.folders) way.append(folder).append("/");
  way.append(path.file);
  open_how how{};
  how.flags = kReadFlags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return UniqueFd(
      static_cast<int>(syscall(SYS_openat2, container, way.c_str(), &how, sizeof(how))));
}

/// A bound on calls that signals interrupt.
bool interrupted(unsigned& times) {
  return errno == EINTR && ++times < limits::kFileRetriesMax;
}

}  // namespace

Errc store_code(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT:
      return Errc::kNoSpace;
    case EROFS:
      return Errc::kReadOnly;
    case EACCES:
    case EPERM:
      return Errc::kAccess;
    case ENOENT:
      return Errc::kNotFound;
    case EFBIG:
      return Errc::kInvalid;
    case ETIMEDOUT:
      return Errc::kTimedOut;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EINTR:
    case EAGAIN:
      return Errc::kAgain;
    default:
      return Errc::kIo;
  }
}

Error LocalContainer::refused(Errc code, const std::string& name, const std::string& why) const {
  return Error(code, fmt::format("{}: {}: {}", label_, name, why));
}

Error LocalContainer::failed(int number, const std::string& name, const char* doing) const {
  if (number == ENOENT && is_gone()) {
    return Error(Errc::kIo, label_ + " was removed while it was open");
  }
  if (number == ELOOP || number == ENOTDIR) {
    return refused(Errc::kIo, name,
                   fmt::format("cannot {}: where a folder or file of this store belongs is "
                               "something else (symbolic links are not followed)",
                               doing));
  }
  const Errc code = store_code(number);
  if (static_cast<int>(code) == number) return refused(code, name, fmt::format("cannot {}", doing));
  return refused(code, name, fmt::format("cannot {} ({})", doing, std::strerror(number)));
}

bool LocalContainer::is_gone() const {
  struct stat info{};
  return !container_ || fstat(container_.get(), &info) != 0 || info.st_nlink == 0;
}

Result<UniqueFd> LocalContainer::own_descriptor(const std::string& name) const {
  UniqueFd copy(fcntl(container_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return failed(errno, name, "open its folder");
  return copy;
}

// --- folders ----------------------------------------------------------------------------------

Result<UniqueFd> LocalContainer::find_folder(const ObjectPath& path,
                                             const std::string& name) const {
  USBD_TRY(UniqueFd at, own_descriptor(name));
  for (const std::string& folder : path.folders) {
    UniqueFd next = enter_folder(at.get(), folder);
    if (!next) return failed(errno, name, "open its folder");
    at = std::move(next);
  }
  return at;
}

Result<UniqueFd> LocalContainer::make_folder(const ObjectPath& path, const std::string& name) {
  USBD_TRY(UniqueFd at, own_descriptor(name));
  std::string way;
  for (const std::string& folder : path.folders) {
    way.append("/").append(folder);
    USBD_TRY(UniqueFd next, enter_or_make(at.get(), folder, name));
    USBD_TRY_VOID(sync_way(at.get(), next.get(), way, name));
    at = std::move(next);
  }
  return at;
}

Result<UniqueFd> LocalContainer::enter_or_make(int parent, const std::string& folder,
                                               const std::string& name) const {
  UniqueFd entered = enter_folder(parent, folder);
  if (!entered && errno == ENOENT) {
    if (mkdirat(parent, folder.c_str(), kFolderMode) != 0 && errno != EEXIST) {
      return failed(errno, name, "make its folder");
    }
    entered = enter_folder(parent, folder);
  }
  if (!entered) return failed(errno, name, "open its folder");
  return entered;
}

Result<void> LocalContainer::sync_way(int parent, int folder, const std::string& path,
                                      const std::string& name) {
  struct statx info{};
  const bool known = statx(folder, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info) == 0 &&
                     (info.stx_mask & STATX_BTIME) != 0;
  const FolderId id{.inode = info.stx_ino,
                    .birth_seconds = info.stx_btime.tv_sec,
                    .birth_nanoseconds = info.stx_btime.tv_nsec};
  const auto found = synced_.find(path);
  if (known && found != synced_.end() && found->second == id) return {};
  if (calls_.fsync(parent) != 0) return failed(errno, name, "sync the folders on the way to it");
  if (!known) return {};
  if (synced_.size() >= limits::kSyncedFoldersMax) synced_.clear();
  synced_.insert_or_assign(path, id);
  return {};
}

// --- changes ----------------------------------------------------------------------------------

Result<void> LocalContainer::write_all(int fd, Bytes data, const std::string& name,
                                       const CallClock& clock) const {
  unsigned interruptions = 0;
  while (!data.empty()) {
    if (const std::optional<Errc> over = clock.over()) {
      return refused(*over, name, "the put ended before its contents were written");
    }
    const size_t piece = std::min(data.size(), limits::kStorePieceBytes);
    const ssize_t written = calls_.write(fd, data.data(), piece);
    if (written > 0) {
      data = data.subspan(static_cast<size_t>(written));
    } else if (written == 0) {
      return refused(Errc::kIo, name, "the system writes none of its contents");
    } else if (!interrupted(interruptions)) {
      return failed(errno, name, "write its contents");
    }
  }
  return {};
}

Result<void> LocalContainer::check(int folder, const std::string& file, const std::string& name,
                                   const Condition& condition) const {
  if (condition.kind == Condition::Kind::kAlways) return {};
  struct stat info{};
  const bool there = fstatat(folder, file.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
  if (!there && errno != ENOENT) return failed(errno, name, "look for it");
  if (condition.kind == Condition::Kind::kAbsent) {
    if (there) return refused(Errc::kExists, name, "is there already");
    return {};
  }
  if (!there) return refused(Errc::kExists, name, "is to be replaced, and is not there");
  USBD_TRY(const OpenObject present, open_object(folder, file, name));
  if (tag_of(present.trailer.nonce) == condition.tag) return {};
  return refused(Errc::kExists, name, "is not the one that was to be replaced");
}

Result<UniqueFd> LocalContainer::place_locked(StagedPut& staged, const std::string& name,
                                              const Condition& condition) {
  const ObjectPath path = object_path(name);
  USBD_TRY(UniqueFd folder, make_folder(path, name));
  USBD_TRY_VOID(check(folder.get(), path.file, name, condition));
  if (calls_.renameat(staged.hidden_folder.get(), staged.file_name.c_str(), folder.get(),
                      path.file.c_str()) != 0) {
    if (errno == ENOENT && !is_gone()) {
      return refused(Errc::kIo, name, "somebody removed its temporary file or its folder");
    }
    return failed(errno, name, "put its file in place");
  }
  staged.file.reset();
  return folder;
}

Result<bool> LocalContainer::place(StagedPut& staged, const std::string& name,
                                   const Condition& condition) {
  Result<UniqueFd> folder = Errc::kIo;
  {
    const MutexLock one_at_a_time(changes_);
    Result<std::optional<UniqueFd>> lock = try_lock();
    if (lock && !lock->has_value()) return false;
    if (lock) {
      folder = place_locked(staged, name, condition);
    } else {
      folder = lock.error();
    }
  }
  if (!folder) {
    discard(staged);
    return folder.error();
  }
  if (calls_.fsync(folder->get()) != 0) return failed(errno, name, "sync its folder");
  return true;
}

Result<UniqueFd> LocalContainer::remove_locked(const std::string& name) {
  const ObjectPath path = object_path(name);
  std::vector<UniqueFd> way(1);
  USBD_TRY(way.front(), own_descriptor(name));
  for (const std::string& folder : path.folders) {
    UniqueFd next = enter_folder(way.back().get(), folder);
    if (!next && errno != ENOENT) return failed(errno, name, "open its folder");
    // An earlier removal may have come as far as this, and no further.
    if (!next) break;
    way.push_back(std::move(next));
  }
  const bool complete = way.size() == path.folders.size() + 1;
  if (complete && unlinkat(way.back().get(), path.file.c_str(), 0) != 0 && errno != ENOENT) {
    return failed(errno, name, "remove it");
  }
  while (way.size() > 1 && unlinkat(way[way.size() - 2].get(), path.folders[way.size() - 2].c_str(),
                                    AT_REMOVEDIR) == 0) {
    way.pop_back();
  }
  return std::move(way.back());
}

Result<bool> LocalContainer::remove(const std::string& name) {
  Result<UniqueFd> folder = Errc::kIo;
  {
    const MutexLock one_at_a_time(changes_);
    USBD_TRY(const std::optional<UniqueFd> lock, try_lock());
    if (!lock) return false;
    folder = remove_locked(name);
  }
  if (!folder) return folder.error();
  if (calls_.fsync(folder->get()) != 0) return failed(errno, name, "sync the folder it was in");
  return true;
}

// --- reading ----------------------------------------------------------------------------------

Result<LocalContainer::OpenObject> LocalContainer::open_object(int folder, const std::string& file,
                                                               const std::string& name) const {
  UniqueFd opened(openat(folder, file.c_str(), kReadFlags));
  if (!opened) return failed(errno, name, "open it");
  return check_object(std::move(opened), name);
}

Result<LocalContainer::OpenObject> LocalContainer::find_object(const std::string& name) const {
  const ObjectPath path = object_path(name);
  UniqueFd opened = open_beneath(container_.get(), path);
  if (opened) return check_object(std::move(opened), name);
  // Step by step it is known what is wrong.
  USBD_TRY(const UniqueFd folder, find_folder(path, name));
  return open_object(folder.get(), path.file, name);
}

Result<LocalContainer::OpenObject> LocalContainer::check_object(UniqueFd file,
                                                                const std::string& name) const {
  OpenObject object;
  object.file = std::move(file);
  struct stat info{};
  if (fstat(object.file.get(), &info) != 0) return failed(errno, name, "look at it");
  if (!S_ISREG(info.st_mode)) return refused(Errc::kDamaged, name, "is not a regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  const auto damaged = [&](const std::string& how) {
    return refused(Errc::kDamaged, name, "the object is damaged: " + how);
  };
  if (size < sizeof(ObjectTrailer)) return damaged(fmt::format("only {} bytes are left", size));
  const MutableBytes trailer = std::as_writable_bytes(std::span(&object.trailer, 1));
  const uint64_t offset = size - sizeof(ObjectTrailer);
  const ssize_t got =
      calls_.pread(object.file.get(), trailer.data(), trailer.size(), static_cast<off_t>(offset));
  if (got < 0) return failed(errno, name, "read it");
  if (static_cast<size_t>(got) < trailer.size()) return damaged("it is being cut");
  if (const std::optional<std::string> how = find_damage(object.trailer, size)) {
    return damaged(*how);
  }
  return object;
}

Result<void> LocalContainer::read_all(int fd, MutableBytes data, uint64_t offset,
                                      const std::string& name, const CallClock& clock) const {
  unsigned interruptions = 0;
  while (!data.empty()) {
    if (const std::optional<Errc> over = clock.over()) {
      return refused(*over, name, "the get ended before all was read");
    }
    const size_t piece = std::min(data.size(), limits::kStorePieceBytes);
    const ssize_t got = calls_.pread(fd, data.data(), piece, static_cast<off_t>(offset));
    if (got > 0) {
      data = data.subspan(static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
    } else if (got == 0) {
      return refused(Errc::kDamaged, name, "the object is damaged: it was cut while it was read");
    } else if (!interrupted(interruptions)) {
      return failed(errno, name, "read it");
    }
  }
  return {};
}

Result<Fetched> LocalContainer::get(const std::string& name, const Part& part,
                                    const CallClock& clock) {
  USBD_TRY(const OpenObject object, find_object(name));
  const Result<ByteRange> range = range_of(part, object.size());
  if (!range) {
    return refused(
        Errc::kOverflow, name,
        fmt::format("holds {} bytes, and at most {} are wanted", object.size(), part.length));
  }
  Fetched fetched{.data = std::vector<std::byte>(range->length),
                  .object_size = object.size(),
                  .tag = tag_of(object.trailer.nonce)};
  USBD_TRY_VOID(read_all(object.file.get(), fetched.data, range->offset, name, clock));
  if (range->length == object.size() && crc32c(fetched.data) != object.trailer.contents_crc) {
    return refused(Errc::kDamaged, name, "the object is damaged: its contents have changed");
  }
  return fetched;
}

Result<ObjectInfo> LocalContainer::head(const std::string& name) {
  USBD_TRY(const OpenObject object, find_object(name));
  return ObjectInfo{.name = name, .size = object.size(), .tag = tag_of(object.trailer.nonce)};
}

}  // namespace usbd::objects
