// SPDX-License-Identifier: Apache-2.0
//
// MapPager: keeps a BlockMap within a budget of memory. Leaves that were not looked at for longest
// go to a local file, each at its own place, and come back when somebody needs them. Who does holds
// them first; that is the only wait: whatever works on a map whose leaves are here stays as it is.
//
// The file is disposable: it gets a new name, which is removed once it is open, so that nobody else
// opens it and nothing is left of it, whatever ends. It says where blocks are and nothing of what
// is in them, and is not sealed. What proves a leaf stays in memory: its length and a checksum of
// its number and contents. A leaf that the file does not give back as it was is asked for in the
// last checkpoint, under the same proof; if that has it not, those who need it get an error. The
// volume then has to be opened anew, and nothing is lost: the map is only what the store says.
//
// A file that takes nothing (no room, an error) costs memory and nothing else: leaves stay, the
// budget is exceeded, the log says so, and it is tried again after a while.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/folder.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/random.h"
#include "devices/objstore/block_map.h"
#include "usbd/loop.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objstore {

/// What state() says of the map's memory.
struct MapUsage {
  /// Units: bytes that the map takes, and may take.
  uint64_t memory = 0;
  uint64_t memory_max = 0;
  /// Leaves that are in the file and not in memory.
  uint64_t leaves_away = 0;
  /// Since the volume was opened: leaves written to the file and read from it; writes that failed;
  /// leaves that the file did not give back as they were, and those of them that the last
  /// checkpoint had.
  uint64_t written = 0;
  uint64_t read = 0;
  uint64_t write_errors = 0;
  uint64_t damaged = 0;
  uint64_t recovered = 0;
  /// The budget is exceeded, because the file takes nothing or there is none.
  bool over_budget = false;
};

class MapPager;

/// As long as it is there, the leaves stay. Threads: any.
class MapHold {
 public:
  MapHold() = default;
  MapHold(MapHold&& other) noexcept = default;
  MapHold& operator=(MapHold&& other) noexcept;
  ~MapHold() { release(); }

 private:
  friend class MapPager;
  MapHold(std::shared_ptr<MapPager> pager, uint64_t first, uint64_t end)
      : pager_(std::move(pager)), first_(first), end_(end) {}
  void release();

  std::shared_ptr<MapPager> pager_;
  uint64_t first_ = 0;
  uint64_t end_ = 0;
};

/// Threads: one loop's, which is the only one that changes the map, but for usage(): any.
class MapPager : public std::enable_shared_from_this<MapPager> {
 public:
  /// Gives a leaf as the last checkpoint has it; what it gives is proven here.
  using Recover = std::function<Task<Result<std::vector<std::byte>>>(uint64_t leaf)>;

  struct Options {
    /// Of the map. Units: bytes.
    uint64_t memory_max = limits::kMapMemory;
    /// Runs what changes the map; for who reads it from other threads. It must run it at once.
    std::function<void(const std::function<void()>&)> exclusively =
        [](const std::function<void()>& change) { change(); };
    /// Empty: there is nothing to recover from.
    Recover recover = {};
  };

  /// `folder`: where the file is made when it is needed; null: nothing goes away, and the budget is
  /// exceeded instead.
  /// Range:    nothing is mapped yet. Lifetime: map, folder and rng until close() has returned.
  MapPager(BlockMap& map, Folder* folder, Rng& rng, Options options);
  ~MapPager();

  /// Brings the leaves of `range` back and has them stay until the hold goes. What is held may
  /// exceed the budget.
  /// Range:  within the volume. Errors: kIo: a leaf is lost, as the file's comment says.
  Task<Result<MapHold>> hold(BlockRange range);
  /// Sends leaves away until the map is within its budget again, as far as that can be done.
  Task<void> make_room();
  [[nodiscard]] bool has_room() const { return map_.memory() <= options_.memory_max; }
  /// Waits for what is under way, and gives the file up. Range: nobody asks for anything any more;
  /// the map is of no use if leaves are away.
  Task<void> close();

  /// `memory` and `leaves_away` are for who knows that nobody changes the map meanwhile.
  [[nodiscard]] MapUsage usage() const;

  /// Removes what a process that died between making a file and removing its name has left.
  static Task<void> remove_left_over(Folder& folder);

 private:
  friend class MapHold;
  struct Busy;

  [[nodiscard]] bool is_held(uint64_t leaf);
  void release(uint64_t first, uint64_t end);
  Task<Result<void>> bring(uint64_t leaf);
  Task<Result<std::vector<std::byte>>> read(uint64_t leaf, BlockMap::Proof proof);
  Task<Result<std::vector<std::byte>>> recover(uint64_t leaf, BlockMap::Proof proof, Error error);
  /// False: the file takes nothing now.
  Task<bool> write(uint64_t leaf);
  Task<Result<void>> open_file();
  void not_written(const Error& error);
  void tell_errors(const std::string& why);
  [[nodiscard]] bool may_write() const;

  BlockMap& map_;
  Folder* const folder_;
  Rng& rng_;
  const Options options_;
  std::unique_ptr<BlockFile> file_;
  bool opening_ = false;
  /// After an error: not before.
  Nanos write_not_before_{0};
  bool told_errors_ = false;
  bool told_damage_ = false;
  /// Calls that are under way.
  unsigned busy_ = 0;
  std::atomic<uint64_t> written_{0};
  std::atomic<uint64_t> read_{0};
  std::atomic<uint64_t> write_errors_{0};
  std::atomic<uint64_t> damaged_{0};
  std::atomic<uint64_t> recovered_{0};

  Mutex mutex_;
  /// Leaves that must stay, and how many want it.
  std::map<uint64_t, uint64_t> held_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::objstore
