// SPDX-License-Identifier: Apache-2.0
//
// The owner of the journal in a history: several tasks that append, sync, release and read at once,
// until a crash or the end of the life. The model is what has been appended, and how much of it a
// sync has covered.

#include "sim/journal_history.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "sim/toy_sealer.h"

namespace usbd::sim {
namespace {

using journal::Entry;
using journal::Journal;
using journal::kBlock;
using journal::Place;

constexpr const char* kFile = "journal";
constexpr uint32_t kPayloadMax = 4;

/// What block `index` of entry `number` of life `life` holds.
void fill(MutableBytes block, uint64_t life, uint64_t number, uint32_t index) {
  SeededRng rng(mix64(life << 40U ^ number << 8U ^ index));
  rng.fill(block);
}

struct Expected {
  Entry entry;
  /// The life that appended it.
  uint64_t life = 0;
};

class History {
 public:
  explicit History(HistoryOptions options)
      : options_(options),
        rng_(mix64(options.seed)),
        loop_({.seed = options.seed}),
        disk_(loop_, {.seed = mix64(options.seed + 1)}) {
    disk_.on_event([this](const DiskEvent& event) { at_event(event); });
  }

  HistoryResult run() {
    const std::optional<Result<void>> made = loop_.run(make());
    if (!made || !*made) return broken("the journal could not be made");
    for (life_ = 1; life_ <= options_.lives && result_.broken_promise.empty(); ++life_) {
      const std::optional<bool> ended = loop_.run(live());
      if (!ended) broken(fmt::format("life {} hangs", life_));
      // What dead processes left under way lands while nobody looks, or while the next one opens.
      if (rng_.one_in(2)) loop_.run_until_idle();
      between_lives();
    }
    loop_.run_until_idle();
    result_.failing_calls = disk_.faults();
    return result_;
  }

 private:
  HistoryResult& broken(std::string how) {
    if (result_.broken_promise.empty()) {
      result_.broken_promise = fmt::format("seed {}: {}", options_.seed, how);
    }
    return result_;
  }

  Task<Result<void>> make() {
    folder_ = disk_.attach();
    const uint64_t ring = rng_.between(28, 72) * kBlock;
    const Folder::OpenHow how{.create = CreatePolicy::kOnly, .direct = true};
    USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await folder_->open(kFile, how));
    const journal::Identity identity{.volume = {std::byte(1)}, .journal = {std::byte(2)}};
    USBD_CO_TRY_VOID(co_await Journal::format(*file, identity, ring, 0));
    co_return co_await file->close();
  }

  // --- crashes
  // ------------------------------------------------------------------------------------

  void plan_crash() {
    const bool soon = rng_.one_in(4);
    crash_in_ = rng_.one_in(8) ? 0 : rng_.between(1, soon ? 12 : 400);
    power_ = !options_.rots && !options_.misreads && rng_.one_in(2);
    only_when_begun_ = rng_.one_in(4);
    if (only_when_begun_) crash_in_ = rng_.between(1, 12);
    dead_ = false;
  }

  void at_event(const DiskEvent& event) {
    if (event.op == DiskOp::kWrite && event.offset >= journal::kRingStart) {
      if (!event.ended) submitted_[event.offset] = ++ring_writes_;
      if (event.ended && submitted_[event.offset] > writes_at_sync_) disk_knows_ = true;
    }
    if (crash_in_ == 0 || (only_when_begun_ && !begun_)) return;
    --crash_in_;
    if (crash_in_ > 0) return;
    ++result_.crashes;
    ++result_.phases[static_cast<size_t>(phase_of(event))];
    dead_ = true;
    if (power_) {
      disk_.cut_power();
    } else {
      disk_.kill_process();
    }
  }

  [[nodiscard]] Phase phase_of(const DiskEvent& event) const {
    if (!begun_) return event.op == DiskOp::kRead ? Phase::kReplay : Phase::kOpening;
    if (event.op == DiskOp::kSync) return Phase::kSync;
    if (event.op != DiskOp::kWrite) return Phase::kIdle;
    if (event.offset < journal::kRingStart) return Phase::kSuperblock;
    return event.length == kBlock ? Phase::kWrap : Phase::kRecord;
  }

  void between_lives() {
    read_well();
    if (options_.misreads && !misread_ && rng_.one_in(2)) {
      const uint64_t size = disk_.contents(kFile)->size();
      disk_.misread(kFile, rng_.below(size), static_cast<unsigned>(rng_.below(8)));
      misread_ = rotten_ = true;
    }
    // A clean close leaves nothing to be seen; what is synced is all.
    if (!options_.rots || rotten_ || !rng_.one_in(2)) return;
    const std::vector<std::byte>* image = disk_.contents(kFile);
    rotten_ =
        disk_.flip_bit(kFile, rng_.below(image->size()), static_cast<unsigned>(rng_.below(8)));
  }

  void read_well() {
    disk_.reads_well();
    if (options_.misreads) rotten_ = false;
  }

  // --- one life
  // -----------------------------------------------------------------------------------

  [[nodiscard]] journal::Options journal_options() const {
    journal::Options options;
    options.payload_blocks_max = kPayloadMax;
    options.staged_bytes_max = 24 * kBlock;
    options.broken_rule = options_.broken_rule;
    if (options_.sealed) options.sealer = toy_sealer;
    return options;
  }

  /// Always true: the history may go on.
  Task<bool> live() {
    plan_crash();
    begun_ = failed_sync_ = false;
    folder_ = disk_.attach();
    if (options_.fails && rng_.one_in(3)) plan_fault();
    const Folder::OpenHow how{
        .create = CreatePolicy::kNever, .direct = true, .lock_wait = Nanos(5'000'000'000)};
    Result<std::unique_ptr<BlockFile>> file = co_await folder_->open(kFile, how);
    if (!file) co_return opening_failed(file.error());
    Result<std::unique_ptr<Journal>> opened =
        co_await Journal::open(*std::move(file), rng_, journal_options());
    if (!opened) co_return opening_failed(opened.error());
    journal_ = *std::move(opened);
    if (co_await recover()) co_await use();
    disk_.clear_faults();
    const Result<void> closed = co_await journal_->close();
    if (closed && !dead_ && begun_) {
      synced_ = last_;
      disk_knows_ = false;
    }
    journal_.reset();
    places_.clear();
    if (!dead_) disk_.kill_process();
    crash_in_ = 0;
    co_return true;
  }

  bool opening_failed(const Error& error) {
    if (!dead_ && !faulty_ && !rotten_) broken("opening failed: " + error.message());
    disk_.clear_faults();
    if (!dead_) disk_.kill_process();
    return true;
  }

  void plan_fault() {
    constexpr std::array<DiskOp, 3> kOps = {DiskOp::kWrite, DiskOp::kSync, DiskOp::kRead};
    faulty_ = true;
    disk_.inject({.op = kOps[rng_.below(3)], .after = rng_.below(40), .count = rng_.between(1, 3)});
  }

  /// Whether the journal can be used.
  Task<bool> recover() {
    std::vector<std::pair<Entry, Place>> found;
    journal::Journal::Visitor visitor = [&found](const Entry& entry, const Place& place) {
      found.emplace_back(entry, place);
    };
    const Result<journal::Replayed> replayed = co_await journal_->replay(visitor);
    if (!replayed) co_return false;
    if (replayed->torn_tail) ++result_.torn_tails;
    if (!replayed->damage.empty()) {
      ++result_.damage_found;
      if (!rotten_ && !faulty_) broken(fmt::format("life {}: {}", life_, replayed->damage));
      co_return false;
    }
    check_found(found);
    if (!result_.broken_promise.empty()) co_return false;
    if (rotten_) ++result_.rot_harmless;
    for (const auto& [entry, place] : found) {
      places_[entry.number] = place;
      if (rng_.one_in(2)) co_await check_read(entry.number);
      if (dead_) co_return false;
    }
    const uint64_t next = last_ + 1;
    const Result<void> begun = co_await journal_->begin(life_, next);
    if (!begun) co_return false;
    begun_ = true;
    // What was not found is over with; before, it may have come back.
    expected_.erase(expected_.upper_bound(last_), expected_.end());
    // All that was replayed is durable now, and the superblock says so.
    synced_ = last_;
    disk_knows_ = true;
    read_well();
    co_return true;
  }

  void check_found(const std::vector<std::pair<Entry, Place>>& found) {
    const uint64_t first = found.empty() ? synced_ + 1 : found.front().first.number;
    const uint64_t last = found.empty() ? std::max(synced_, released_) : found.back().first.number;
    if (!found.empty() && first > released_ + 1) {
      broken(fmt::format("life {}: entries {} to {} are missing", life_, released_ + 1, first - 1));
    }
    if (found.empty() && released_ < synced_) {
      lost(released_ + 1);
    } else if (last < synced_ && released_ < synced_) {
      lost(last + 1);
    }
    uint64_t number = first;
    for (const auto& [entry, place] : found) {
      // What was released before it was ever in the ring is not missed.
      while (number < entry.number && number <= released_) ++number;
      const auto expected = expected_.find(number++);
      if (expected == expected_.end() || expected->second.entry != entry) {
        broken(
            fmt::format("life {}: entry {} (found {} to {}, released {}) is not the one of life "
                        "{} that was appended",
                        life_, entry.number, first, last, released_,
                        expected == expected_.end() ? 0 : expected->second.life));
        return;
      }
    }
    last_ = std::max(last, released_);
    // What could not be told from a torn tail may be given up by now, or be there the next time.
    synced_ = std::min(synced_, last_);
  }

  /// Entry `number`, which was synced, is not there.
  void lost(uint64_t number) {
    // Rot in the very last records is seen only by what was written after their sync.
    if (rotten_ && !disk_knows_) return;
    broken(fmt::format("life {}: entry {} was synced (all up to {}) and is lost", life_, number,
                       synced_));
  }

  Task<void> check_read(uint64_t number) {
    const auto expected = expected_.find(number);
    const auto place = places_.find(number);
    if (expected == expected_.end() || place == places_.end()) co_return;
    const Expected wanted = expected->second;
    if (!wanted.entry.has_payload) co_return;
    AlignedBuffer memory(wanted.entry.blocks * kBlock);
    const Journal::Held held = journal_->hold(place->second);
    const Result<void> read = co_await journal_->read(held, memory.bytes());
    if (!read) {
      if (!dead_ && !faulty_ && !rotten_) broken("reading failed: " + read.error().message());
      co_return;
    }
    AlignedBuffer block(kBlock);
    for (uint32_t i = 0; i < wanted.entry.blocks; ++i) {
      fill(block.bytes(), wanted.life, number, i);
      if (!std::ranges::equal(memory.bytes().subspan(i * kBlock, kBlock), block.bytes())) {
        broken(fmt::format("life {}: entry {} reads wrong bytes", life_, number));
      }
    }
  }

  Task<void> use() {
    changes_ = 0;
    journal_->on_change([this] { ++changes_; });
    Scope tasks;
    left_ = rng_.between(5, 150);
    tasks.spawn(append());
    for (int i = 0; i < 2; ++i) tasks.spawn(sync_now_and_then());
    tasks.spawn(release_now_and_then());
    tasks.spawn(read_now_and_then());
    co_await tasks.close();
  }

  [[nodiscard]] bool over() { return dead_ || left_ == 0 || !result_.broken_promise.empty(); }

  Task<void> pause() {
    const Nanos wait(static_cast<int64_t>(rng_.below(rng_.one_in(10) ? 30'000'000 : 400'000)));
    co_await loop_.sleep_for(wait);
  }

  Task<void> append() {
    AlignedBuffer memory(kPayloadMax * kBlock);
    while (!over()) {
      Entry entry{.number = last_ + 1,
                  .block = rng_.below(1000),
                  .blocks = alike_ ? 1 : static_cast<uint32_t>(rng_.between(1, kPayloadMax)),
                  .kind = static_cast<uint8_t>(rng_.between(1, 3)),
                  .has_payload = alike_ || !rng_.one_in(6)};
      const uint32_t payload = entry.has_payload ? entry.blocks : 0;
      if (!journal_->has_room(payload)) {
        if (journal_->failure()) break;
        co_await pause();
        continue;
      }
      for (uint32_t i = 0; i < payload; ++i) {
        fill(memory.bytes().subspan(i * kBlock, kBlock), life_, entry.number, i);
      }
      places_[entry.number] = journal_->append(entry, memory.bytes().first(payload * kBlock));
      expected_[entry.number] = {.entry = entry, .life = life_};
      ++last_;
      ++result_.entries;
      --left_;
      if (rng_.one_in(3)) co_await pause();
    }
    left_ = 0;
  }

  Task<void> sync_now_and_then() {
    while (!over()) {
      co_await pause();
      const uint64_t covered = last_;
      const Result<void> synced = co_await journal_->sync();
      if (dead_) co_return;
      if (!synced) {
        if (!faulty_) broken("sync failed: " + synced.error().message());
        failed_sync_ = true;
        continue;
      }
      if (failed_sync_) broken("a sync succeeded after one had failed");
      if (covered > synced_) {
        result_.synced_entries += covered - synced_;
        synced_ = covered;
        writes_at_sync_ = ring_writes_;
        disk_knows_ = false;
      }
    }
  }

  Task<void> release_now_and_then() {
    while (!over()) {
      co_await pause();
      // Mostly in time, sometimes late, so that the ring fills up.
      if (rng_.one_in(4)) continue;
      const uint64_t number = rng_.between(released_, std::max(released_, last_));
      released_ = number;
      places_.erase(places_.begin(), places_.upper_bound(number));
      journal_->release(number);
    }
  }

  Task<void> read_now_and_then() {
    while (!over()) {
      co_await pause();
      if (places_.empty()) continue;
      auto any = places_.lower_bound(rng_.between(released_, last_));
      if (any == places_.end()) continue;
      co_await check_read(any->first);
    }
  }

  const HistoryOptions options_;
  HistoryResult result_;
  SeededRng rng_;
  SimLoop loop_;
  SimDisk disk_;
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<Journal> journal_;
  std::map<uint64_t, Expected> expected_;
  std::map<uint64_t, Place> places_;
  /// All entries are of one size, so that records of different sessions lie alike.
  const bool alike_ = rng_.one_in(2);
  uint64_t life_ = 0;
  uint64_t last_ = 0;
  uint64_t synced_ = 0;
  uint64_t released_ = 0;
  uint64_t left_ = 0;
  uint64_t crash_in_ = 0;
  uint64_t changes_ = 0;
  uint64_t ring_writes_ = 0;
  uint64_t writes_at_sync_ = 0;
  bool power_ = false;
  bool only_when_begun_ = false;
  bool dead_ = false;
  bool begun_ = false;
  bool faulty_ = false;
  bool rotten_ = false;
  bool misread_ = false;
  bool failed_sync_ = false;
  bool disk_knows_ = false;
  std::map<uint64_t, uint64_t> submitted_;
};

}  // namespace

const char* phase_name(Phase phase) {
  constexpr std::array<const char*, kPhases> kNames = {
      "opening", "replay", "record", "wrap/mark", "superblock", "sync", "idle"};
  return kNames[static_cast<size_t>(phase)];
}

HistoryResult run_journal_history(HistoryOptions options) {
  return History(options).run();
}

}  // namespace usbd::sim
