// SPDX-License-Identifier: Apache-2.0
//
// Names of a container in order. The system lists a folder in no order, so a folder is read whole,
// and of its entries the first so many that are asked for are kept: memory is bounded by the
// question, not by the folder. Folders in which no wanted name can be are not entered.

#include <algorithm>
#include <cerrno>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "objects/local/local_container.h"

namespace usbd::objects {
namespace {

/// Entries between two looks at the clock.
constexpr size_t kEntriesPerLook = 4096;

using Kind = PathEntry::Kind;

struct Batch {
  std::vector<PathEntry> entries;
  /// Whether the folder has more, behind the last of these.
  bool cut = false;
};

/// Keeps the first `most` of what is added.
class FirstEntries {
 public:
  explicit FirstEntries(size_t most) : most_(most) {}

  void add(PathEntry entry) {
    batch_.entries.push_back(std::move(entry));
    if (batch_.entries.size() >= 2 * most_ + 1) shrink();
  }
  Batch take() {
    if (batch_.entries.size() > most_) shrink();
    std::ranges::sort(batch_.entries, {}, &PathEntry::key);
    // A folder that changes while it is read may show an entry twice.
    const auto again = std::ranges::unique(batch_.entries, {}, &PathEntry::key);
    batch_.entries.erase(again.begin(), again.end());
    return std::move(batch_);
  }

 private:
  void shrink() {
    const auto end = batch_.entries.begin() + static_cast<ptrdiff_t>(most_);
    std::ranges::nth_element(batch_.entries, end, {}, &PathEntry::key);
    batch_.entries.erase(end, batch_.entries.end());
    batch_.cut = true;
  }

  const size_t most_;
  Batch batch_;
};

/// Whether the entry is of the type that its name says. Ref: readdir(3), d_type.
bool has_type(int folder, const dirent& entry, Kind kind) {
  const unsigned char wanted = kind == Kind::kObject ? DT_REG : DT_DIR;
  if (entry.d_type != DT_UNKNOWN) return entry.d_type == wanted;
  struct stat info{};
  if (fstatat(folder, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) return false;
  return kind == Kind::kObject ? S_ISREG(info.st_mode) : S_ISDIR(info.st_mode);
}

class Walk {
 public:
  struct Question {
    const std::string& prefix;
    const std::string& after;
    size_t most;
  };

  Walk(const LocalContainer& container, Question question, const CallClock& clock)
      : container_(container), question_(question), clock_(clock) {}

  /// Takes the names of a folder, all of which begin with `base`.
  Result<void> visit(int folder, const std::string& base, bool in_more) {
    std::optional<std::string> done;
    for (;;) {
      USBD_TRY(const Batch batch, read(folder, base, in_more, done));
      for (const PathEntry& entry : batch.entries) {
        if (run_.names.size() >= question_.most) {
          run_.more = true;
          return {};
        }
        USBD_TRY_VOID(take(folder, base, in_more, entry));
      }
      if (!batch.cut || run_.more) return {};
      if (run_.names.size() >= question_.most) {
        run_.more = true;
        return {};
      }
      done = batch.entries.back().key;
    }
  }

  NameRun result() { return std::move(run_); }

 private:
  Result<void> take(int folder, const std::string& base, bool in_more, const PathEntry& entry) {
    if (entry.kind == Kind::kObject) {
      run_.names.push_back(base + entry.key);
      return {};
    }
    const UniqueFd inner = enter_folder(folder, entry_file_name(entry, in_more));
    if (inner) return visit(inner.get(), base + entry.key, entry.kind == Kind::kMore);
    // Removed, or replaced by something else, since the folder was read.
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return {};
    return container_.failed(errno, base + entry.key, "list this folder");
  }

  /// The first wanted entries of a folder behind the key `done`, if there is one.
  Result<Batch> read(int folder, const std::string& base, bool in_more,
                     const std::optional<std::string>& done) {
    const int listed = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (listed < 0) return container_.failed(errno, base, "list this folder");
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(listed), closedir);
    if (!entries) {
      const int number = errno;
      ::close(listed);
      return container_.failed(number, base, "list this folder");
    }
    FirstEntries first(question_.most - run_.names.size());
    for (size_t count = 0;; ++count) {
      if (count % kEntriesPerLook == 0) {
        const std::optional<Errc> over = clock_.over();
        if (over) return container_.refused(*over, base, "the listing was not finished");
      }
      errno = 0;
      const dirent* const entry = readdir(entries.get());
      if (entry == nullptr && errno != 0) return container_.failed(errno, base, "list this folder");
      if (entry == nullptr) return first.take();
      std::optional<PathEntry> read = read_entry(entry->d_name, in_more);
      if (read && (!done || read->key > *done) && is_wanted(base, *read) &&
          has_type(folder, *entry, read->kind)) {
        first.add(*std::move(read));
      }
    }
  }

  [[nodiscard]] bool is_wanted(const std::string& base, const PathEntry& entry) const {
    // The folder itself, the one above, and at the top what is hidden.
    if (entry.key == "./" || entry.key == "../") return false;
    if (base.empty() && entry.key.starts_with('.')) return false;
    const std::string full = base + entry.key;
    if (entry.kind == Kind::kObject) {
      return full > question_.after && full.starts_with(question_.prefix) && is_object_name(full);
    }
    return full.size() <= kObjectNameMax &&
           (full.starts_with(question_.prefix) || question_.prefix.starts_with(full)) &&
           (full > question_.after || question_.after.starts_with(full));
  }

  const LocalContainer& container_;
  const Question question_;
  const CallClock& clock_;
  NameRun run_;
};

}  // namespace

Result<NameRun> LocalContainer::names(const std::string& prefix, const std::string& after,
                                      size_t most, const CallClock& clock) {
  if (is_gone()) return failed(ENOENT, prefix, "list it");
  Walk walk(*this, {.prefix = prefix, .after = after, .most = most}, clock);
  USBD_TRY_VOID(walk.visit(container_.get(), "", false));
  return walk.result();
}

Result<std::vector<ObjectInfo>> LocalContainer::describe(std::span<const std::string> names) {
  std::vector<ObjectInfo> described;
  ObjectPath path;
  UniqueFd folder;
  for (const std::string& name : names) {
    ObjectPath next = object_path(name);
    if (!folder || next.folders != path.folders) {
      Result<UniqueFd> found = find_folder(next, name);
      if (!found && found.error().is(Errc::kNotFound)) continue;
      if (!found) return found.error();
      folder = *std::move(found);
    }
    path = std::move(next);
    struct stat info{};
    if (fstatat(folder.get(), path.file.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return failed(errno, name, "look at it");
    }
    const auto size = static_cast<uint64_t>(info.st_size);
    described.push_back(
        {.name = name, .size = size - std::min<uint64_t>(size, sizeof(ObjectTrailer)), .tag = {}});
  }
  return described;
}

}  // namespace usbd::objects
