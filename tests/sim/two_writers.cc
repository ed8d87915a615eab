// SPDX-License-Identifier: Apache-2.0
//
// The winner's first image decides: every flush that the loser was ever told had succeeded must be
// in it, if flushes are remote.

#include "sim/two_writers.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "objects/retrying_store.h"
#include "sim/image_model.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "sim/space_rules.h"
#include "sim/toy_sealer.h"

namespace usbd::sim {
namespace {

using objstore::BlockRange;
using objstore::FlushMode;
using objstore::kBlockBytes;
using objstore::Volume;

constexpr uint64_t kBlocks = 64;
constexpr uint32_t kWriteBlocksMax = 4;
constexpr Nanos kMilli{1'000'000};
/// The loser looks at the head every ten seconds; the store may fail some times in between.
constexpr Nanos kNoticesWithin{90'000'000'000};

class TwoWriters {
 public:
  explicit TwoWriters(TwoWritersOptions options)
      : options_(options),
        rng_(mix64(options.seed)),
        loop_({.seed = options.seed}),
        store_(loop_, store_options(options)),
        first_(loop_, {.seed = mix64(options.seed + 3)}),
        second_(loop_, {.seed = mix64(options.seed + 4)}) {}

  TwoWritersResult run() {
    if (!loop_.run(everything())) broken("it hangs");
    result_.slow_calls = store_.slow_calls();
    result_.store_faults = store_.faults();
    result_.ambiguous = store_.ambiguous();
    return result_;
  }

 private:
  void broken(const std::string& how) {
    if (how.empty() || !result_.broken_promise.empty()) return;
    result_.broken_promise = fmt::format("seed {}: {}", options_.seed, how);
  }

  static SimStore::Options store_options(const TwoWritersOptions& options) {
    const bool slow = mix64(options.seed + 5) % 2 == 0;
    return {.seed = mix64(options.seed + 2),
            .fault_one_in = 8,
            .slow_one_in = slow ? 40U : 0U,
            .slow_max = 6000 * kMilli};
  }

  std::unique_ptr<objects::ObjectStore> connect() {
    return std::make_unique<objects::RetryingStore>(store_.attach(), objects::RetryOptions{}, rng_);
  }

  Task<Result<std::unique_ptr<Volume>>> open(Folder& folder, objects::ObjectStore& client,
                                             bool takeover) {
    objstore::VolumeOptions options;
    options.name = "vol";
    options.size = kBlocks * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = options_.mode;
    options.object_bytes = 8 * kBlockBytes;
    options.flush_every = 200 * kMilli;
    options.journal_bytes = 64 * journal::kBlock;
    options.journal_payload_max = kWriteBlocksMax;
    options.takeover = takeover;
    options.space = draw_space_rules(rng_);
    options.broken_rule = options_.broken_rule;
    const objstore::VolumeParts parts{
        .store = client, .folder = &folder, .rng = rng_, .journal_sealer = toy_sealer};
    for (int attempt = 0; attempt < 50; ++attempt) {
      Result<std::unique_ptr<Volume>> opened = co_await Volume::open(parts, options);
      if (opened) co_return opened;
      const bool passes = objects::is_transient(opened.error()) || opened.error().is(Errc::kBusy);
      if (!passes) co_return opened;
      co_await loop_.sleep_for(100 * kMilli);
    }
    co_return Error(Errc::kTimedOut, "fifty attempts");
  }

  Task<bool> everything() {
    const std::unique_ptr<Folder> folder = first_.attach();
    const std::unique_ptr<objects::ObjectStore> client = connect();
    Result<std::unique_ptr<Volume>> loser = co_await open(*folder, *client, false);
    if (!loser) {
      broken("the first cannot open: " + loser.error().message());
      co_return true;
    }
    Scope scope;
    scope.spawn(write_and_flush(**loser));
    scope.spawn(flush_only(**loser));
    const Nanos wait(static_cast<int64_t>(rng_.below(4'000'000'000)));
    co_await loop_.sleep_for(wait);
    co_await win(**loser);
    over_ = true;
    (*loser)->abandon();
    co_await scope.close();
    std::stop_source stop;
    stop.request_stop();
    static_cast<void>(
        co_await (*loser)->close(stop.get_token()));  // it has nothing to say any more
    count(**loser);
    // What the loser had asked for lands, if it ever does.
    co_await loop_.sleep_for(20'000 * kMilli);
    co_await check_again();
    if (result_.broken_promise.empty()) co_await check_kept_journal();
    co_return true;
  }

  Task<void> win(Volume& loser) {
    const std::unique_ptr<Folder> folder = second_.attach();
    const std::unique_ptr<objects::ObjectStore> client = connect();
    Result<std::unique_ptr<Volume>> winner = co_await open(*folder, *client, true);
    if (!winner) {
      broken("the second cannot open: " + winner.error().message());
      co_return;
    }
    result_.takeovers = 1;
    taken_at_ = loop_.now();
    kept_ = (*winner)->state().last_number;
    if (options_.mode == FlushMode::kRemote && promised_ > kept_) promised_too_much();
    AlignedBuffer image(kBlocks * kBlockBytes);
    co_await read_all(**winner, image.bytes());
    broken(model_.check(0, image.bytes(), kept_, kept_));
    won_ = model_;
    won_.forget_after(kept_);
    co_await change_a_little(**winner);
    const Nanos deadline = loop_.now() + kNoticesWithin;
    while (!loser.state().fenced && loop_.now() < deadline) co_await loop_.sleep_for(500 * kMilli);
    if (!loser.state().fenced) broken("the loser never noticed");
    fenced_seen_ = true;
    const Result<void> closed = co_await (*winner)->close(std::stop_token());
    if (!closed) broken("the winner cannot close: " + closed.error().message());
    count(**winner);
  }

  void count(Volume& volume) {
    const objstore::VolumeState state = volume.state();
    result_.checkpoints += state.checkpoints_made;
    result_.cleaned += state.objects_cleaned;
    result_.deleted += state.objects_deleted;
  }

  void promised_too_much() {
    broken(
        fmt::format("a flush of all up to change {} succeeded, but the volume was taken over at "
                    "change {}",
                    promised_, kept_));
  }

  Task<void> change_a_little(Volume& winner) {
    AlignedBuffer memory(kBlockBytes);
    for (int i = 0; i < 12; ++i) {
      const uint64_t block = rng_.below(kBlocks);
      const uint64_t stamp = (uint64_t{1} << 32U) + won_.draw_stamp();
      ImageModel::fill(memory.bytes(), block, stamp);
      const Result<uint64_t> number = co_await winner.write(block, memory.bytes());
      if (!number) {
        broken("the winner cannot write: " + number.error().message());
        co_return;
      }
      won_.note(BlockRange(block, 1), *number, stamp);
      last_won_ = *number;
      co_await loop_.sleep_for(50 * kMilli);
    }
    const Result<void> flushed = co_await winner.flush();
    if (!flushed) broken("the winner cannot flush: " + flushed.error().message());
  }

  /// The volume is the winner's, whatever the loser did after.
  Task<void> check_again() {
    if (!result_.broken_promise.empty()) co_return;
    const std::unique_ptr<Folder> folder = second_.attach();
    const std::unique_ptr<objects::ObjectStore> client = connect();
    Result<std::unique_ptr<Volume>> volume = co_await open(*folder, *client, true);
    if (!volume) {
      broken("it cannot be opened again: " + volume.error().message());
      co_return;
    }
    AlignedBuffer image(kBlocks * kBlockBytes);
    co_await read_all(**volume, image.bytes());
    broken(won_.check(0, image.bytes(), last_won_, last_won_));
    static_cast<void>(co_await (*volume)->close(std::stop_token()));  // read is all it was for
  }

  // --- what the loser keeps

  /// The loser's host comes back. What it had flushed and the winner has not is in the journal that
  /// is put aside, to be exported.
  Task<void> check_kept_journal() {
    const std::unique_ptr<Folder> folder = first_.attach();
    const std::unique_ptr<objects::ObjectStore> client = connect();
    Result<std::unique_ptr<Volume>> volume = co_await open(*folder, *client, true);
    if (!volume) {
      broken("it cannot be opened on the loser's host: " + volume.error().message());
      co_return;
    }
    static_cast<void>(co_await (*volume)->close(std::stop_token()));  // it has put it aside
    if (promised_ <= kept_) co_return;
    std::string kept;
    for (const std::string& name : first_.files()) {
      if (name.ends_with(".kept")) kept = name;
    }
    if (kept.empty()) {
      broken("the loser's journal is gone");
      co_return;
    }
    ++result_.kept_journals;
    co_await check_export(*folder, kept);
  }

  Task<void> check_export(Folder& folder, std::string name) {
    const Folder::OpenHow how{.create = CreatePolicy::kNever, .direct = true};
    Result<std::unique_ptr<BlockFile>> file = co_await folder.open(name, how);
    if (!file) {
      broken("the kept journal cannot be opened: " + file.error().message());
      co_return;
    }
    journal::Options options;
    options.sealer = toy_sealer;
    options.payload_blocks_max = kWriteBlocksMax;
    Result<std::unique_ptr<journal::Journal>> opened =
        co_await journal::Journal::open(*std::move(file), rng_, options);
    if (!opened) {
      broken("the kept journal is none: " + opened.error().message());
      co_return;
    }
    std::map<uint64_t, std::pair<journal::Entry, journal::Place>> found;
    journal::Journal::Visitor visitor = [&found](const journal::Entry& entry,
                                                 const journal::Place& place) {
      found[entry.number] = {entry, place};
    };
    const Result<journal::Replayed> replayed = co_await (*opened)->replay(visitor);
    if (!replayed || !replayed->damage.empty()) broken("the kept journal is damaged");
    for (uint64_t number = kept_ + 1; number <= promised_; ++number) {
      const auto at = found.find(number);
      if (at == found.end()) {
        broken(
            fmt::format("change {} was flushed (all up to {}), the winner has all up to {}, and "
                        "the kept journal has it not",
                        number, promised_, kept_));
        break;
      }
      co_await check_entry(**opened, at->second.first, at->second.second);
    }
    static_cast<void>(co_await (*opened)->close());  // it was only read
  }

  Task<void> check_entry(journal::Journal& journal, journal::Entry entry, journal::Place place) {
    const auto wanted = written_.find(entry.number);
    if (wanted == written_.end()) {
      broken(fmt::format("nobody wrote change {} of the kept journal", entry.number));
      co_return;
    }
    const auto& [range, stamp] = wanted->second;
    AlignedBuffer memory(entry.blocks * kBlockBytes);
    AlignedBuffer expected(entry.blocks * kBlockBytes);
    const journal::Journal::Held held = journal.hold(place);
    const Result<void> read = co_await journal.read(held, memory.bytes());
    ImageModel::fill(expected.bytes(), range.first, stamp);
    const bool same = read && entry.block == range.first && entry.blocks == range.count &&
                      std::ranges::equal(memory.bytes(), expected.bytes());
    if (!same) broken(fmt::format("change {} of the kept journal is another", entry.number));
    ++result_.exported;
  }

  Task<void> read_all(Volume& volume, MutableBytes out) {
    Result<void> read = co_await volume.read(0, out);
    for (int i = 0; i < 100 && !read && objects::is_transient(read.error()); ++i) {
      read = co_await volume.read(0, out);
    }
    if (!read) broken("the image cannot be read: " + read.error().message());
  }

  Task<void> pause() {
    // Now and then the process stalls, as one does whose machine is suspended.
    const bool stalls = rng_.one_in(30);
    if (stalls) ++result_.stalls;
    const uint64_t longest = stalls ? 3'000'000'000 : 60'000'000;
    const Nanos wait(static_cast<int64_t>(rng_.below(longest)));
    co_await loop_.sleep_for(wait);
  }

  Task<void> write_and_flush(Volume& volume) {
    AlignedBuffer memory(kWriteBlocksMax * kBlockBytes);
    while (!over_) {
      const uint64_t count = rng_.between(1, kWriteBlocksMax);
      const BlockRange range(rng_.below(kBlocks - count + 1), count);
      const uint64_t stamp = model_.draw_stamp();
      const MutableBytes bytes = memory.bytes().first(count * kBlockBytes);
      ImageModel::fill(bytes, range.first, stamp);
      const Result<uint64_t> number = co_await volume.write(range.first, bytes);
      if (!number) break;
      model_.note(range, *number, stamp);
      written_.insert_or_assign(*number, std::pair(range, stamp));
      last_ = *number;
      ++result_.changes;
      co_await pause();
    }
  }

  Task<void> flush_only(Volume& volume) {
    while (!over_) {
      co_await pause();
      const uint64_t covered = last_;
      const Result<void> flushed = co_await volume.flush();
      if (!flushed) {
        ++result_.refused_flushes;
        if (!volume.state().fenced && !over_)
          broken("a flush failed: " + flushed.error().message());
        co_return;
      }
      ++result_.flushes;
      if (fenced_seen_) broken("a flush succeeded after the loser had noticed");
      promised_ = std::max(promised_, covered);
      if (result_.takeovers > 0 && options_.mode == FlushMode::kRemote && promised_ > kept_) {
        promised_too_much();
      }
      if (result_.takeovers > 0 && loop_.now() > taken_at_ + kNoticesWithin) {
        broken("a flush succeeded long after the volume was taken over");
      }
    }
  }

  const TwoWritersOptions options_;
  TwoWritersResult result_;
  SeededRng rng_;
  SimLoop loop_;
  SimStore store_;
  SimDisk first_;
  SimDisk second_;
  ImageModel model_{kBlocks};
  ImageModel won_{kBlocks};
  /// The loser's, by number.
  std::map<uint64_t, std::pair<BlockRange, uint64_t>> written_;
  Nanos taken_at_{0};
  uint64_t last_ = 0;
  uint64_t promised_ = 0;
  uint64_t kept_ = 0;
  uint64_t last_won_ = 0;
  bool fenced_seen_ = false;
  bool over_ = false;
};

}  // namespace

TwoWritersResult run_two_writers(TwoWritersOptions options) {
  return TwoWriters(options).run();
}

}  // namespace usbd::sim
