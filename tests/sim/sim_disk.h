// SPDX-License-Identifier: Apache-2.0
//
// SimDisk: a folder of files on a disk whose every freedom is used against its users. A call takes
// virtual time; a write lands somewhere between its submission and its answer. A sync covers the
// writes that were answered before it was submitted. When the power goes, each 4 KiB block of each
// write since is kept, dropped or torn at 512 bytes, and overlapping ones may come in any order.
// When only the process dies, its writes that are under way land later, or never, and hold the
// file's lock until then. Calls can be made to fail, and bytes to rot.
//
// The dead are not destroyed: all their calls fail at once and change nothing, so that they can be
// wound up at leisure.

#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/folder.h"
#include "async/sim_loop.h"
#include "base/random.h"

namespace usbd::sim {

enum class DiskOp : uint8_t { kOpen, kRead, kWrite, kSync, kAllocate, kRename, kRemove };

/// One boundary of one call: its beginning, or its end before the caller hears of it.
struct DiskEvent {
  DiskOp op = DiskOp::kRead;
  std::string file;
  uint64_t offset = 0;
  uint64_t length = 0;
  bool ended = false;
};

/// Calls of one kind that fail.
struct DiskFault {
  DiskOp op = DiskOp::kWrite;
  /// Only calls that begin in these bytes of a file; a sync begins at 0.
  uint64_t first = 0;
  uint64_t end = UINT64_MAX;
  /// How many calls of that kind go well before, and how many fail then.
  uint64_t after = 0;
  uint64_t count = 1;
  Errc error = Errc::kIo;
};

/// What becomes of what a dead process had under way.
enum class OfTheDead : uint8_t { kChance, kLost, kLands };

/// What the power leaves of the writes since the last sync, if that is not left to chance. They are
/// counted over all files, in the order of their names and of submission.
struct PowerCut {
  /// Bit i: write i is kept, as if it had been synced.
  uint64_t kept = 0;
  /// Of this one every other sector is kept, whatever its bit says; 64: of none.
  unsigned torn = 64;
};

/// Threads: its loop's. Lifetime: outlives all that was attached.
class SimDisk {
 public:
  struct Options {
    uint64_t seed = 1;
    Nanos latency_min{20'000};
    Nanos latency_max{500'000};
    /// The longest that a write of a killed process takes to land.
    Nanos late_max{1'500'000'000};
    /// Units: bytes of all files together.
    uint64_t space = UINT64_MAX;
    OfTheDead of_the_dead = OfTheDead::kChance;
  };

  SimDisk(SimLoop& loop, Options options);
  ~SimDisk();
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  /// The folder as one process sees it, until it dies.
  std::unique_ptr<Folder> attach();

  /// Everything attached so far is dead; what the system holds in memory stays.
  void kill_process();
  /// Everything attached so far is dead, and what was not synced is at the mercy of chance.
  void cut_power();
  /// The same, but exactly so. Range: at most 64 writes are not synced.
  void cut_power(PowerCut cut);
  /// Writes that the next power cut decides about.
  [[nodiscard]] size_t unsynced() const;

  /// Called at each event of a process that lives; it may kill.
  void on_event(std::function<void(const DiskEvent&)> function) { event_ = std::move(function); }
  void inject(DiskFault fault) { faults_.push_back(fault); }
  void clear_faults() { faults_.clear(); }

  /// Changes a bit of what is on the disk. False: there is no such file or place.
  bool flip_bit(const std::string& file, uint64_t offset, unsigned bit);
  /// Puts other bytes there, as a disk that lost a sector, or wrote another's in its place.
  /// False: there is no such file or place.
  bool rot(const std::string& file, uint64_t offset, Bytes bytes);
  /// Whoever reads this byte finds another bit in it until reads_well(), though the disk has it
  /// right.
  void misread(const std::string& file, uint64_t offset, unsigned bit) {
    misread_ = Misread{.file = file, .offset = offset, .mask = std::byte(1U << bit % 8)};
  }
  void reads_well() { misread_.reset(); }
  /// Calls that were made to fail.
  [[nodiscard]] uint64_t faults() const { return faults_met_; }
  [[nodiscard]] std::vector<std::string> files() const;
  /// What a reader would find now; null: no such file.
  [[nodiscard]] const std::vector<std::byte>* contents(const std::string& file) const;
  /// Removes a file as nobody's process would.
  void lose(const std::string& file) { files_.erase(file); }
  /// All of it, as another disk would have it after a copy.
  [[nodiscard]] std::map<std::string, std::vector<std::byte>> snapshot() const;
  void restore(const std::map<std::string, std::vector<std::byte>>& files);

 private:
  friend class SimFolder;
  friend class SimFile;

  struct Write {
    uint64_t id = 0;
    uint64_t offset = 0;
    std::vector<std::byte> data;
    /// In what order it landed; 0: it is under way.
    uint64_t landed = 0;
    bool answered = false;
  };
  struct File {
    std::vector<std::byte> present;
    std::vector<std::byte> durable;
    /// Since the last sync that covered them.
    std::list<Write> writes;
    /// The life that has it open; 0: none.
    uint64_t open_by = 0;
    /// Writes under way, also those of dead processes: they keep the lock.
    unsigned writing = 0;
  };
  using FileRef = std::shared_ptr<File>;
  struct Misread {
    std::string file;
    uint64_t offset = 0;
    std::byte mask{0};
  };

  /// Puts changed(index, old byte) in place of `size` bytes, wherever they are.
  static void change(File& file, uint64_t offset, size_t size,
                     const std::function<std::byte(size_t, std::byte)>& changed);
  [[nodiscard]] bool is_dead(uint64_t life) const { return life < first_living_; }
  void tell(const DiskEvent& event, uint64_t life);
  std::optional<Error> meet(DiskOp op, uint64_t offset);
  [[nodiscard]] Nanos latency();
  void land(File& file, Write& write);
  void settle(File& file);
  Task<void> land_late(FileRef file, uint64_t id);
  [[nodiscard]] uint64_t used() const;

  SimLoop& loop_;
  const Options options_;
  SeededRng rng_;
  std::map<std::string, FileRef> files_;
  std::vector<DiskFault> faults_;
  std::optional<Misread> misread_;
  std::function<void(const DiskEvent&)> event_ = [](const DiskEvent&) {};
  uint64_t lives_ = 0;
  uint64_t first_living_ = 1;
  uint64_t next_id_ = 1;
  uint64_t landings_ = 0;
  uint64_t faults_met_ = 0;
};

}  // namespace usbd::sim
