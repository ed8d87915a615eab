// SPDX-License-Identifier: Apache-2.0
//
// FaultDisk and its files: a disk in memory that does to its users what real ones do, when a test
// says so. It fails the n-th call of a kind, lets part of a failed write land, and at a power cut
// keeps, drops or tears each write that was not synced, drawn from a seed. Like Linux it forgets a
// failed sync: the pages count as clean, their data is lost at the next power cut, and the sync
// after that succeeds.
//
// The disk outlives its files, so a test crashes it and opens it again.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/block_file.h"
#include "base/random.h"

namespace usbd::testing {

/// The kinds of calls that can be made to fail. kAllocate: allocate, punch, zero and truncate.
enum class FileOp : uint8_t { kRead, kWrite, kSync, kAllocate, kMap };

/// Calls of one kind that fail.
struct Fault {
  FileOp op = FileOp::kWrite;
  /// How many calls of that kind, from now on, go well before.
  uint64_t after = 0;
  /// How many fail then.
  uint64_t count = 1;
  Errc error = Errc::kIo;
  /// kWrite: whether a part of the data, from its start, lands all the same.
  bool partial = false;
};

/// Threads: one loop's. Lifetime: outlives its files.
class FaultDisk {
 public:
  struct Options {
    uint64_t seed = 1;
    /// Units: bytes. All of it is a hole at first.
    uint64_t size = 0;
    uint32_t block_size = 1;
    /// Whether punch() and zero() work; else they are kNotSupported.
    bool punches = true;
    bool zeroes = true;
    /// Whether next_data() and next_hole() work.
    bool knows_holes = true;
    /// Units: bytes of data the disk has room for.
    uint64_t space = UINT64_MAX;
  };

  explicit FaultDisk(Options options);

  /// A file of all of the disk. Any number may be open; each dies at crash().
  std::unique_ptr<BlockFile> open();

  void inject(Fault fault) { faults_.push_back(fault); }
  /// Forgets every fault that has not been used up.
  void clear_faults() { faults_.clear(); }

  /// Cuts the power: of each 4 KiB page, what was written since its last sync is kept, lost, or
  /// torn at a 512-byte sector. Files that are open fail with kIo from now on.
  void crash();
  /// The same, keeping nothing that was not synced.
  void crash_losing_all();

  /// Calls of a kind so far, failed ones too.
  [[nodiscard]] uint64_t calls(FileOp op) const { return calls_[static_cast<size_t>(op)]; }
  /// Pages that a crash now could take something from.
  [[nodiscard]] size_t unsynced_pages() const { return unsynced_.size() + forgotten_.size(); }

 private:
  friend class FaultFile;
  static constexpr uint64_t kPage = 4096;
  static constexpr uint64_t kSector = 512;
  using Page = std::array<std::byte, kPage>;
  using Pages = std::map<uint64_t, Page>;

  /// The error that this call meets, if any.
  std::optional<Fault> meet(FileOp op);
  [[nodiscard]] bool has_room_for(ByteRange range) const;
  void load(uint64_t offset, MutableBytes data) const;
  void store(uint64_t offset, Bytes data);
  void clear(ByteRange range, bool keep_allocated);
  /// Makes page `index` what it is in `from` (absent there: a hole) on stable storage; `change`
  /// says up to which change that is.
  void make_durable(uint64_t index, const Pages& from, uint64_t change);
  /// Lets pages whose sync failed be again what they are on stable storage.
  void forget_unwritten();
  void crash_page(uint64_t index);
  void after_crash();

  const Options options_;
  SeededRng rng_;
  uint64_t size_;
  uint64_t durable_size_;
  /// What reads see, and what a crash leaves. A page that is absent is a hole.
  Pages pages_;
  Pages durable_;
  /// The last change of each page that durable_ has.
  std::map<uint64_t, uint64_t> durable_change_;
  /// Pages written since they were last synced, and when (a count of changes).
  std::map<uint64_t, uint64_t> unsynced_;
  /// Pages whose sync failed: clean in the kernel's eyes, and not on the disk.
  std::map<uint64_t, uint64_t> forgotten_;
  uint64_t changes_ = 0;
  uint64_t crashes_ = 0;
  std::vector<Fault> faults_;
  std::array<uint64_t, 5> calls_{};
};

}  // namespace usbd::testing
