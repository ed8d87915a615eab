// SPDX-License-Identifier: Apache-2.0
//
// LocalContainer: the blocking half of the store in a directory. It turns names into files
// (object_path.h), and puts a file in its place so that no crash shows half of one:
//
//  1. The contents and their trailer (object_file.h) go to a file of the hidden folder ".usbd",
//     which no listing shows, and are synced. The file is locked with flock while its writer lives.
//  2. Under flock of ".usbd/lock" the folders are made that the name needs, each synced into the
//  one
//     above it; the condition is looked at; the file is renamed to its place.
//  3. The folder is synced, and only then the put has succeeded.
//
// Every change of a name happens in step 2 or in a removal, which holds the same lock, so processes
// and stores exclude each other and folders that got empty can be removed. A process that finds a
// folder cannot know whether its maker lived to sync it; it syncs the way there once, and
// remembers the folder by its inode and birth. Readers take no lock: files never change in place.
// A reader may see a put whose step 3 is still to come; what such a reader puts into the same
// folder is not on the disk before that.
//
// A copy of the directory (cp -a, rsync, a snapshot) is a complete store, tags and all, if nothing
// was put while it was copied. Names that differ only by case need a filesystem that tells them
// apart; others are refused. Symbolic links are never followed below the container.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/unique_fd.h"
#include "objects/call_clock.h"
#include "objects/local/file_calls.h"
#include "objects/local/object_file.h"
#include "objects/local/object_path.h"
#include "objects/object_store.h"

namespace usbd::objects {

/// A file that is written and not yet in its place.
struct StagedPut {
  UniqueFd hidden_folder;
  UniqueFd file;
  std::string file_name;
};

/// Names in order.
struct NameRun {
  std::vector<std::string> names;
  /// Whether there may be more, after the last of these.
  bool more = false;
};

/// Threads: any, at the same time; all calls block.
class LocalContainer {
 public:
  struct Options {
    /// An existing directory.
    std::string path;
    /// Of the container, a folder in it.
    std::string name;
    /// Makes it if it is not there.
    bool create = true;
    /// Nothing is made or changed.
    bool read_only = false;
    /// Lifetime: outlives the container. Null: the system's.
    FileCalls* calls = nullptr;
  };

  /// Opens the container, and removes what writers that have died left in its hidden folder.
  /// Errors: kNotFound: no such directory; kInvalid: the name, or what is there; kNotSupported:
  ///         the filesystem has no flock, or takes "a" and "A" for the same; kAccess, kNoSpace,
  ///         kReadOnly, kIo.
  static Result<std::unique_ptr<LocalContainer>> open(const Options& options);

  /// "local:///srv/volumes/vol1"
  [[nodiscard]] const std::string& label() const { return label_; }

  /// Step 1. On an error nothing is left.
  Result<void> stage(StagedPut& staged, const std::string& name, Bytes data, const PutNonce& nonce,
                     const CallClock& clock);
  /// Steps 2 and 3. False: somebody else holds the lock; nothing was done. On an error, and on
  /// success, the staged file is gone.
  /// Errors: kExists: the condition does not hold.
  Result<bool> place(StagedPut& staged, const std::string& name, const Condition& condition);
  /// Gives a staged file up.
  static void discard(StagedPut& staged);

  Result<Fetched> get(const std::string& name, const Part& part, const CallClock& clock);
  Result<ObjectInfo> head(const std::string& name);
  /// False: somebody else holds the lock; nothing was done.
  Result<bool> remove(const std::string& name);

  /// The first `most` names after `after` that begin with `prefix`.
  Result<NameRun> names(const std::string& prefix, const std::string& after, size_t most,
                        const CallClock& clock);
  /// Names and sizes; what is no longer there is left out.
  Result<std::vector<ObjectInfo>> describe(std::span<const std::string> names);

  /// An error of a call about an object. `number`: errno.
  [[nodiscard]] Error failed(int number, const std::string& name, const char* doing) const;
  [[nodiscard]] Error refused(Errc code, const std::string& name, const std::string& why) const;

 private:
  struct FolderId {
    uint64_t inode = 0;
    int64_t birth_seconds = 0;
    uint32_t birth_nanoseconds = 0;
    friend bool operator==(const FolderId&, const FolderId&) = default;
  };
  struct OpenObject {
    UniqueFd file;
    ObjectTrailer trailer{};
    [[nodiscard]] uint64_t size() const { return trailer.contents_size; }
  };

  explicit LocalContainer(const Options& options);
  Result<void> open_folders(const Options& options);
  Result<void> refuse_caseless() const;
  [[nodiscard]] Result<UniqueFd> hidden_folder() const;
  /// Locks changes out. Empty: somebody else has.
  [[nodiscard]] Result<std::optional<UniqueFd>> try_lock() const;
  void remove_left_over() const;
  [[nodiscard]] Result<UniqueFd> make_staging_file(StagedPut& staged,
                                                   const std::string& name) const;
  Result<void> write_all(int fd, Bytes data, const std::string& name, const CallClock& clock) const;
  Result<void> read_all(int fd, MutableBytes data, uint64_t offset, const std::string& name,
                        const CallClock& clock) const;

  /// The folder of an object.
  [[nodiscard]] Result<UniqueFd> find_folder(const ObjectPath& path, const std::string& name) const;
  Result<UniqueFd> make_folder(const ObjectPath& path, const std::string& name)
      USBD_REQUIRES(changes_);
  Result<UniqueFd> enter_or_make(int parent, const std::string& folder,
                                 const std::string& name) const;
  /// Syncs `parent` unless the entry of `folder` in it is known to be on the disk.
  Result<void> sync_way(int parent, int folder, const std::string& path, const std::string& name)
      USBD_REQUIRES(changes_);
  Result<UniqueFd> place_locked(StagedPut& staged, const std::string& name,
                                const Condition& condition) USBD_REQUIRES(changes_);
  Result<UniqueFd> remove_locked(const std::string& name) USBD_REQUIRES(changes_);
  [[nodiscard]] Result<void> check(int folder, const std::string& file, const std::string& name,
                                   const Condition& condition) const;
  [[nodiscard]] Result<OpenObject> open_object(int folder, const std::string& file,
                                               const std::string& name) const;
  /// The same, on its way from the container, with one call where the system has one for that.
  [[nodiscard]] Result<OpenObject> find_object(const std::string& name) const;
  [[nodiscard]] Result<OpenObject> check_object(UniqueFd file, const std::string& name) const;
  [[nodiscard]] Result<UniqueFd> own_descriptor(const std::string& name) const;
  /// Whether the container's folder has been removed.
  [[nodiscard]] bool is_gone() const;

  const std::string label_;
  FileCalls& calls_;
  UniqueFd container_;
  /// One thread of this process at a time tries for the lock.
  Mutex changes_;
  std::unordered_map<std::string, FolderId> synced_ USBD_GUARDED_BY(changes_);
};

/// What a store says for errno `number`.
[[nodiscard]] Errc store_code(int number);
/// Opens a folder without following a link. Returns -1 and errno on failure.
[[nodiscard]] UniqueFd enter_folder(int parent, const std::string& folder);

}  // namespace usbd::objects
