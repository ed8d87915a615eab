// SPDX-License-Identifier: Apache-2.0
//
// The model: every numbered change, and for each block the changes that touched it. The engine says
// up to which number it has recovered; the image must be exactly that prefix.

#include "sim/volume_history.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "sim/image_model.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "sim/space_rules.h"
#include "sim/toy_sealer.h"

namespace usbd::sim {
namespace {

using objstore::BlockRange;
using objstore::ExtentKind;
using objstore::FlushMode;
using objstore::kBlockBytes;
using objstore::Volume;

constexpr uint64_t kVolumeBlocks = 96;
constexpr uint32_t kWriteBlocksMax = 6;
constexpr Nanos kSecond{1'000'000'000};

class VolumeHistory {
 public:
  explicit VolumeHistory(VolumeHistoryOptions options)
      : options_(options),
        rng_(mix64(options.seed)),
        loop_({.seed = options.seed}),
        store_(loop_,
               {.seed = mix64(options.seed + 2), .fault_one_in = options.store_fault_one_in}) {
    for (size_t i = 0; i < 2; ++i) {
      disks_[i] =
          std::make_unique<SimDisk>(loop_, SimDisk::Options{.seed = mix64(options.seed + 3 + i)});
      disks_[i]->on_event([this, i](const DiskEvent& event) {
        if (i == host_) at_event(phase_of(event));
      });
    }
    store_.on_event([this](uint64_t life, const StoreEvent& event) {
      if (life == life_in_store_) at_event(phase_of(event));
    });
  }

  VolumeHistoryResult run() {
    for (life_ = 1; life_ <= options_.lives && result_.broken_promise.empty(); ++life_) {
      const std::optional<bool> ended = loop_.run(live());
      if (!ended) broken("it hangs");
      if (rng_.one_in(2)) loop_.run_until_idle();
    }
    loop_.run_until_idle();
    result_.store_faults = store_.faults();
    result_.objects = store_.objects().size();
    return result_;
  }

 private:
  void broken(const std::string& how) {
    if (!result_.broken_promise.empty()) return;
    result_.broken_promise = fmt::format("seed {}, life {}: {}", options_.seed, life_, how);
  }

  // --- crashes
  // ------------------------------------------------------------------------------------

  void plan_life() {
    const bool soon = rng_.one_in(4);
    crash_in_ = rng_.one_in(6) ? 0 : rng_.between(1, soon ? 20 : 500);
    aim_.reset();
    if (crash_in_ > 0 && rng_.one_in(4)) {
      // At one of the rarer moments.
      constexpr VolumePhase kRare[] = {VolumePhase::kCheckpoint, VolumePhase::kClean,
                                       VolumePhase::kDelete, VolumePhase::kPublish};
      aim_ = kRare[rng_.below(std::size(kRare))];
      crash_in_ = rng_.between(1, 12);
    }
    power_ = rng_.one_in(2);
    only_when_open_ = !rng_.one_in(4);
    lose_disk_ = options_.loses_disks && rng_.one_in(6);
    dead_ = false;
    open_ = false;
  }

  void at_event(VolumePhase phase) {
    if (crash_in_ == 0 || (only_when_open_ && !open_)) return;
    if (aim_ && phase != *aim_) return;
    if (--crash_in_ > 0) return;
    ++result_.crashes;
    ++result_.phases[static_cast<size_t>(open_ ? phase : VolumePhase::kOpening)];
    die();
  }

  void die() {
    dead_ = true;
    store_.kill(life_in_store_);
    if (power_) {
      disks_[host_]->cut_power();
    } else {
      disks_[host_]->kill_process();
    }
    loop_.spawn(wind_up(life_));
  }

  /// Nothing of the dead has an effect any more; their tasks only have to end.
  Task<void> wind_up(uint64_t life) {
    if (life == life_ && volume_) volume_->abandon();
    co_return;
  }

  static VolumePhase phase_of(const DiskEvent& event) {
    if (event.op == DiskOp::kSync) return VolumePhase::kJournalSync;
    if (event.op != DiskOp::kWrite) return VolumePhase::kOther;
    return event.offset < journal::kRingStart ? VolumePhase::kSuperblock
                                              : VolumePhase::kJournalWrite;
  }
  static VolumePhase phase_of(const StoreEvent& event) {
    if (event.op == StoreOp::kGet) return VolumePhase::kFetch;
    if (event.op == StoreOp::kRemove) return VolumePhase::kDelete;
    if (event.op != StoreOp::kPut) return VolumePhase::kOther;
    if (event.name.starts_with("vol/m/")) return VolumePhase::kCheckpoint;
    if (event.name.starts_with("vol/g/")) return VolumePhase::kClean;
    return event.name.ends_with("/head") ? VolumePhase::kPublish : VolumePhase::kUpload;
  }

  // --- one life
  // -----------------------------------------------------------------------------------

  [[nodiscard]] objstore::VolumeOptions volume_options() {
    objstore::VolumeOptions options;
    options.name = "vol";
    options.size = kVolumeBlocks * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = options_.mode;
    options.object_bytes = rng_.between(4, 24) * kBlockBytes;
    options.flush_every = rng_.one_in(3) ? Nanos(0) : Nanos(300'000'000);
    options.dirty_age_max = 20 * kSecond;
    options.journal_bytes = 64 * journal::kBlock;
    options.journal_payload_max = kWriteBlocksMax;
    options.uploads_max = static_cast<unsigned>(rng_.between(1, 4));
    options.takeover = takeover_;
    options.space = draw_space_rules(rng_);
    options.broken_rule = options_.broken_rule;
    options.broken_journal_rule = options_.broken_journal_rule;
    return options;
  }

  /// Whether the error is one of the simulated store's, not damage that is called the same.
  static bool was_injected(const Error& error) { return error.message().contains("injected"); }

  /// Always true: the history may go on.
  Task<bool> live() {
    plan_life();
    if (disk_lost_) {
      // Lost for good, or left behind on a host that comes back one day.
      if (rng_.one_in(2)) disks_[host_]->restore({});
      host_ = 1 - host_;
      takeover_ = true;
      ++result_.takeovers;
    }
    folder_ = disks_[host_]->attach();
    client_ = store_.attach();
    life_in_store_ = store_.last_life();
    objstore::VolumeParts parts{
        .store = *client_, .folder = folder_.get(), .rng = rng_, .journal_sealer = toy_sealer};
    Result<std::unique_ptr<Volume>> opened = co_await Volume::open(parts, volume_options());
    if (opened) {
      volume_ = *std::move(opened);
      co_await use();
      co_await end_life();
    } else if (!dead_ && !was_injected(opened.error()) && !opened.error().is(Errc::kBusy)) {
      // Busy: what a dead process had asked of the store has come between.
      broken("opening failed: " + opened.error().message());
    }
    if (!dead_) die();
    co_return true;
  }

  Task<void> use() {
    co_await check_image();
    if (dead_ || !result_.broken_promise.empty()) co_return;
    open_ = true;
    disk_lost_ = takeover_ = false;
    left_ = rng_.between(10, 120);
    Scope tasks;
    for (uint64_t part = 0; part < 3; ++part) tasks.spawn(change(part));
    for (int i = 0; i < 2; ++i) tasks.spawn(flush_now_and_then());
    tasks.spawn(read_now_and_then());
    co_await tasks.close();
  }

  Task<void> end_life() {
    std::stop_source stop;
    if (dead_) stop.request_stop();
    const bool close_properly = !dead_ && rng_.one_in(2);
    if (!dead_ && !close_properly) {
      // Out of the blue, when nothing is under way for the client.
      ++result_.crashes;
      die();
      stop.request_stop();
    }
    const Result<void> closed = co_await volume_->close(stop.get_token());
    if (closed && !dead_) flushed_ = published_ = last_;
    const objstore::VolumeState state = volume_->state();
    result_.checkpoints += state.checkpoints_made;
    result_.cleaned += state.objects_cleaned;
    result_.deleted += state.objects_deleted;
    volume_.reset();
    crash_in_ = 0;
    // Its disk is gone: then only what was published is sure.
    disk_lost_ = lose_disk_;
    if (disk_lost_) {
      ++result_.lost_disks;
      flushed_ = options_.mode == FlushMode::kRemote ? flushed_ : published_;
    }
  }

  // --- the image
  // ----------------------------------------------------------------------------------

  void check(const std::string& wrong) {
    if (!wrong.empty()) broken(wrong);
  }

  Task<void> check_image() {
    const uint64_t recovered = volume_->state().last_number;
    if (recovered < flushed_) {
      broken(fmt::format("it goes on after change {}, but {} was flushed", recovered, flushed_));
      co_return;
    }
    if (recovered > last_) {
      broken(fmt::format("it goes on after change {}, but {} was the last", recovered, last_));
      co_return;
    }
    AlignedBuffer memory(kVolumeBlocks * kBlockBytes);
    const Result<void> read = co_await read_patiently(0, memory.bytes());
    if (dead_) co_return;
    if (!read) {
      broken("the image cannot be read: " + read.error().message());
      co_return;
    }
    check(model_.check(0, memory.bytes(), recovered, recovered));
    model_.forget_after(recovered);
    last_ = recovered;
    if (options_.mode == FlushMode::kLocal && !disk_lost_) flushed_ = std::max(flushed_, recovered);
    published_ = std::min(std::max(published_, volume_->head().published_number), last_);
  }

  Task<Result<void>> read_patiently(uint64_t block, MutableBytes out) {
    // In pieces: one request of the store in some fails, and a read may need many.
    while (!out.empty()) {
      const MutableBytes piece = out.first(std::min(out.size(), 2 * kBlockBytes));
      Result<void> read = co_await volume_->read(block, piece);
      for (int i = 0; i < 200 && !read && !dead_ && was_injected(read.error()); ++i) {
        read = co_await volume_->read(block, piece);
      }
      if (!read || dead_) co_return read;
      out = out.subspan(piece.size());
      block += piece.size() / kBlockBytes;
    }
    co_return Result<void>();
  }

  // --- the client
  // ---------------------------------------------------------------------------------

  [[nodiscard]] bool over() const { return dead_ || left_ == 0 || !result_.broken_promise.empty(); }

  Task<void> pause() {
    const uint64_t longest = rng_.one_in(8) ? 400'000'000 : 3'000'000;
    const Nanos wait(static_cast<int64_t>(rng_.below(longest)));
    co_await loop_.sleep_for(wait);
  }

  /// Each task has a third of the volume, so that no two changes overlap in time.
  Task<void> change(uint64_t part) {
    constexpr uint64_t kPart = kVolumeBlocks / 3;
    AlignedBuffer memory(kWriteBlocksMax * kBlockBytes);
    while (!over()) {
      const uint64_t count = rng_.between(1, kWriteBlocksMax);
      const BlockRange range(part * kPart + rng_.below(kPart - count + 1), count);
      const bool clears = rng_.one_in(6);
      const uint64_t stamp = clears ? 0 : model_.draw_stamp();
      --left_;
      Result<uint64_t> number{uint64_t{0}};
      if (clears) {
        const ExtentKind kind = rng_.one_in(2) ? ExtentKind::kTrim : ExtentKind::kZero;
        number = co_await volume_->clear(range, kind);
      } else {
        const MutableBytes bytes = memory.bytes().first(count * kBlockBytes);
        ImageModel::fill(bytes, range.first, stamp);
        number = co_await volume_->write(range.first, bytes);
      }
      if (!number) {
        if (!dead_) broken("a change failed: " + number.error().message());
        co_return;
      }
      note(range, *number, stamp);
      if (rng_.one_in(3)) co_await pause();
    }
  }

  void note(BlockRange range, uint64_t number, uint64_t stamp) {
    if (number <= last_) broken(fmt::format("change {} was numbered twice", number));
    last_ = std::max(last_, number);
    ++result_.changes;
    model_.note(range, number, stamp);
  }

  Task<void> flush_now_and_then() {
    while (!over()) {
      co_await pause();
      if (over()) co_return;
      const uint64_t covered = last_;
      const Result<void> flushed = co_await volume_->flush();
      if (dead_) co_return;
      if (!flushed) {
        broken("a flush failed: " + flushed.error().message());
        co_return;
      }
      flushed_ = std::max(flushed_, covered);
      published_ = std::max(published_, volume_->head().published_number);
      ++result_.flushed;
    }
  }

  Task<void> read_now_and_then() {
    AlignedBuffer memory(kVolumeBlocks * kBlockBytes);
    while (!over()) {
      co_await pause();
      if (over()) co_return;
      // Now and then all of it by one read, which takes long.
      const bool all = rng_.one_in(4);
      const uint64_t count = all ? kVolumeBlocks : rng_.between(1, kWriteBlocksMax);
      const uint64_t block = rng_.below(kVolumeBlocks - count + 1);
      const uint64_t before = last_;
      const MutableBytes out = memory.bytes().first(count * kBlockBytes);
      Result<void> read;
      if (all) {
        read = co_await volume_->read(block, out);
      } else {
        read = co_await read_patiently(block, out);
      }
      if (dead_) co_return;
      if (!read && all && was_injected(read.error())) continue;
      if (!read) {
        broken("a read failed: " + read.error().message());
        co_return;
      }
      ++result_.reads;
      check(model_.check(block, out, before, last_));
    }
  }

  const VolumeHistoryOptions options_;
  VolumeHistoryResult result_;
  SeededRng rng_;
  SimLoop loop_;
  SimStore store_;
  std::array<std::unique_ptr<SimDisk>, 2> disks_;
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<objects::ObjectStore> client_;
  std::unique_ptr<Volume> volume_;
  ImageModel model_{kVolumeBlocks};
  size_t host_ = 0;
  uint64_t life_in_store_ = 0;
  uint64_t life_ = 0;
  uint64_t last_ = 0;
  uint64_t flushed_ = 0;
  uint64_t published_ = 0;
  uint64_t left_ = 0;
  uint64_t crash_in_ = 0;
  /// Only events of this phase count.
  std::optional<VolumePhase> aim_;
  bool power_ = false;
  bool only_when_open_ = false;
  bool dead_ = false;
  bool open_ = false;
  bool lose_disk_ = false;
  bool disk_lost_ = false;
  bool takeover_ = false;
};

}  // namespace

const char* volume_phase_name(VolumePhase phase) {
  constexpr std::array<const char*, kVolumePhases> kNames = {
      "opening", "journal write", "journal sync", "superblock", "upload", "publish",
      "fetch",   "checkpoint",    "clean",        "delete",     "other"};
  return kNames[static_cast<size_t>(phase)];
}

VolumeHistoryResult run_volume_history(VolumeHistoryOptions options) {
  return VolumeHistory(options).run();
}

}  // namespace usbd::sim
