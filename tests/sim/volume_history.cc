// SPDX-License-Identifier: Apache-2.0
//
// The model: every numbered change, and for each block the changes that touched it. The engine says
// up to which number it has recovered; the image must be exactly that prefix.

#include "sim/volume_history.h"

#include <algorithm>
#include <array>
#include <deque>
#include <iterator>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "devices/objstore/journal_sealer.h"
#include "objects/retrying_store.h"
#include "sim/image_model.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "sim/snapshot_oracle.h"
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
constexpr Nanos kStuckAfter = 900 * kSecond;

class VolumeHistory {
 public:
  explicit VolumeHistory(VolumeHistoryOptions options)
      : options_(options),
        rng_(mix64(options.seed)),
        loop_({.seed = options.seed}),
        store_(loop_, store_options(options)) {
    choose_variant();
    keeps_cache_ = rng_.one_in(2);
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
      if (options_.rolls_back && may_roll_back() && rng_.one_in(3)) {
        loop_.run_until_idle();
        if (!loop_.run(roll_back())) broken("opening an older state hangs");
      }
    }
    loop_.run_until_idle();
    if (result_.broken_promise.empty()) static_cast<void>(loop_.run(compare_all()));
    result_.store_faults = store_.faults();
    result_.slow_calls = store_.slow_calls();
    for (const auto& disk : disks_) result_.disk_faults += disk->faults();
    result_.objects = store_.objects().size();
    return result_;
  }

 private:
  void broken(const std::string& how) {
    if (!result_.broken_promise.empty()) return;
    result_.broken_promise = fmt::format("seed {}, life {}: {}", options_.seed, life_, how);
  }

  // --- what differs from history to history

  static SimStore::Options store_options(const VolumeHistoryOptions& options) {
    const bool slow = options.varies && mix64(options.seed + 5) % 4 == 0;
    return {.seed = mix64(options.seed + 2),
            .fault_one_in = options.store_fault_one_in,
            .slow_one_in = slow ? 60U : 0U};
  }

  void choose_variant() {
    using crypto::CipherMode;
    constexpr std::array<CipherMode, 3> kCiphers = {
        CipherMode::kAesGcm, CipherMode::kChaCha20Poly1305, CipherMode::kAesCtr};
    rng_.fill(key_);
    if (!options_.varies) return;
    if (rng_.one_in(4)) cipher_ = kCiphers[rng_.below(kCiphers.size())];
    retries_ = rng_.one_in(4);
    result_.encrypted = is_encrypted() ? 1 : 0;
    result_.retrying = retries_ ? 1 : 0;
  }

  [[nodiscard]] bool is_encrypted() const { return cipher_ != crypto::CipherMode::kIdentity; }

  /// The codec is another one at each opening.
  codec::Codec draw_codec() {
    constexpr std::array<codec::CodecKind, 4> kKinds = {
        codec::CodecKind::kIdentity, codec::CodecKind::kIdentity, codec::CodecKind::kLz4,
        codec::CodecKind::kZstd};
    return {.kind = kKinds[options_.varies ? rng_.below(kKinds.size()) : 0], .level = 1};
  }

  void connect() {
    client_ = store_.attach();
    life_in_store_ = store_.last_life();
    if (!retries_) return;
    client_ =
        std::make_unique<objects::RetryingStore>(std::move(client_), objects::RetryOptions{}, rng_);
  }

  [[nodiscard]] objstore::VolumeParts volume_parts() {
    objstore::VolumeParts parts{
        .store = *client_, .folder = folder_.get(), .rng = rng_, .journal_sealer = toy_sealer};
    if (is_encrypted()) {
      parts.key = key_;
      parts.journal_sealer = objstore::journal_sealers(key_);
    }
    return parts;
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
    if (!event.file.starts_with("journal-")) return VolumePhase::kOther;
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
    options.cipher = cipher_;
    options.codec = draw_codec();
    options.flush_mode = options_.mode;
    options.object_bytes = rng_.between(4, 24) * kBlockBytes;
    options.flush_every = rng_.one_in(3) ? Nanos(0) : Nanos(300'000'000);
    options.dirty_age_max = 20 * kSecond;
    options.journal_bytes = 64 * journal::kBlock;
    options.journal_payload_max = kWriteBlocksMax;
    options.uploads_max = static_cast<unsigned>(rng_.between(1, 4));
    // From nothing to all that there can be; not drawn, so that seeds mean what they did.
    constexpr std::array<uint64_t, 4> kMemory = {0, 8 * kBlockBytes, 40 * kBlockBytes, 1U << 20};
    options.memory_bytes = kMemory.at(mix64(options_.seed + life_) % kMemory.size());
    options.cache_bytes = rng_.one_in(8) ? 0 : rng_.between(1, kVolumeBlocks) * kBlockBytes;
    options.keeps_cache = keeps_cache_;
    options.takeover = takeover_;
    options.space = draw_space_rules(rng_);
    // One of four has a map that goes to the disk whenever it changes.
    if (options_.seed % 4 == 0) options.map_bytes = 1;
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
      if (rng_.one_in(2)) {
        disks_[host_]->restore({});
        seen_[host_] = 0;
        harmed_[host_] = rotten_[host_] = false;
      }
      host_ = 1 - host_;
      takeover_ = true;
      ++result_.takeovers;
    }
    harm();
    rot_cache();
    folder_ = disks_[host_]->attach();
    connect();
    const objstore::VolumeParts parts = volume_parts();
    Result<std::unique_ptr<Volume>> opened = co_await Volume::open(parts, volume_options());
    disks_[host_]->reads_well();
    if (opened) {
      volume_ = *std::move(opened);
      note_seen();
      keep_state();
      if (volume_->state().cache.blocks > 0) ++result_.caches_kept;
      co_await use();
      co_await end_life();
    } else if (!dead_ && may_be_refused()) {
      co_await refused(opened.error());
    } else if (!dead_ && !is_excused(opened.error())) {
      broken("opening failed: " + opened.error().message());
    }
    if (!dead_) die();
    mend();
    co_return true;
  }

  // --- damage

  /// What goes wrong in this life, or went wrong before it.
  void harm() {
    SimDisk& disk = *disks_[host_];
    faults_before_ = disk.faults();
    flush_failed_ = changed_here_ = false;
    if (std::exchange(misread_, false)) rotten_[host_] = false;
    if (options_.disk_fails && rng_.one_in(3)) {
      ++result_.troubles[static_cast<size_t>(inject_trouble(disk, rng_))];
    }
    if (options_.rots && !disk_lost_ && rng_.one_in(2)) {
      const std::optional<Rotten> rotten = rot_journal(disk, rng_);
      if (rotten) {
        ++result_.rotted;
        ++result_.rots[static_cast<size_t>(rotten->kind)];
        rotten_[host_] = true;
        // Rot of what no later write knows to have been flushed cannot be told from a torn tail.
        flushed_ = std::min(flushed_, std::max(published_, rotten->known_durable));
      }
    }
    if (options_.misreads && !disk_lost_ && result_.misread == 0 && rng_.one_in(2)) misread();
    if (options_.mutates && rng_.one_in(4)) mutate();
  }

  void misread() {
    const std::optional<Rotten> rotten = misread_journal(*disks_[host_], rng_);
    if (!rotten) return;
    ++result_.misread;
    misread_ = rotten_[host_] = true;
    flushed_before_ = flushed_;
    flushed_ = std::min(flushed_, std::max(published_, rotten->known_durable));
  }

  void mutate() {
    const std::optional<Mutation> mutation = mutator_.mutate();
    if (!mutation) return;
    ++result_.mutated;
    ++result_.mutations[static_cast<size_t>(*mutation)];
    mutated_ = true;
  }

  /// The next life finds the disk well, and the store as it was; the journal stays as it is.
  void mend() {
    disks_[host_]->clear_faults();
    if (faulty()) harmed_[host_] = true;
    mutator_.restore();
    mutated_ = false;
  }

  /// Whether a call to the disk has failed in this life.
  [[nodiscard]] bool faulty() const { return disks_[host_]->faults() > faults_before_; }
  /// Whether what is on the disk may be damaged for good.
  [[nodiscard]] bool may_be_damaged() const { return rotten_[host_] || harmed_[host_]; }
  [[nodiscard]] bool may_be_refused() const { return faulty() || may_be_damaged() || mutated_; }

  /// Whether this was injected, or what a dead process had asked of the store has come between.
  static bool is_excused(const Error& error) {
    const std::string message = error.message();
    return message.contains("injected") || message.contains("at this moment");
  }

  /// The volume was not opened. What was published must be there nevertheless.
  Task<void> refused(Error error) {
    ++result_.refused_openings;
    // What was refused for damage is as it was. If the store failed, the journal may have gone on.
    if (misread_ && !is_excused(error)) flushed_ = flushed_before_;
    if (faulty() || mutated_ || misread_) co_return;  // it may go well the next time
    objstore::VolumeOptions options = volume_options();
    options.read_only = true;
    options.takeover = false;
    Result<std::unique_ptr<Volume>> opened = co_await Volume::open(volume_parts(), options);
    if (opened) {
      volume_ = *std::move(opened);
      AlignedBuffer memory(kVolumeBlocks * kBlockBytes);
      const uint64_t published = volume_->head().published_number;
      const Result<void> read = co_await read_patiently(0, memory.bytes());
      const bool whole = read && !dead_;
      if (whole) check(model_.check(0, memory.bytes(), published, published));
      if (whole && published < published_) broken("less is published than was");
      const Result<void> closed = co_await volume_->close(std::stop_token());
      if (!closed) broken("what was only read cannot be closed: " + closed.error().message());
      volume_.reset();
    } else if (!dead_ && !is_excused(opened.error())) {
      broken("it cannot even be read: " + opened.error().message());
    }
    give_disk_up();
  }

  /// Its owner has read what was wrong, and goes on with what was published.
  void give_disk_up() {
    disk_lost_ = true;
    flushed_ = options_.mode == FlushMode::kRemote ? flushed_ : published_;
  }

  Task<void> outage() {
    const Nanos until_away(static_cast<int64_t>(rng_.below(3'000'000'000)));
    co_await loop_.sleep_for(until_away);
    if (over()) co_return;
    ++result_.outages;
    store_.be_away_until(loop_.now() + kSecond * rng_.between(1, 240));
  }

  /// Each block by itself: those that cannot be proven are refused, and no others.
  Task<void> check_blocks(uint64_t recovered) {
    AlignedBuffer memory(kBlockBytes);
    for (uint64_t block = 0; block < kVolumeBlocks && !dead_; ++block) {
      const Result<void> read = co_await read_patiently(block, memory.bytes());
      if (dead_) co_return;
      ++(read ? result_.blocks_readable : result_.blocks_refused);
      if (read) check(model_.check(block, memory.bytes(), recovered, recovered));
      if (!read && !is_excused(read.error()) && !read.error().is(Errc::kIo)) {
        broken("what cannot be proven is refused with " + read.error().message());
      }
    }
  }

  Task<void> use() {
    co_await check_image();
    if (dead_ || !result_.broken_promise.empty()) co_return;
    check(snapshots_.listed(volume_->snapshots()));
    if (takes_snapshots_ && snapshot_rng_.one_in(4)) co_await compare_all();
    if (dead_ || !result_.broken_promise.empty()) co_return;
    if (options_.mutates && rng_.one_in(2)) {
      mutate();
      co_await check_blocks(last_);
      if (dead_ || !result_.broken_promise.empty()) co_return;
    }
    if (rotten_[host_]) ++result_.harmless;
    rotten_[host_] = false;
    if (disk_lost_) harmed_[host_] = false;  // it begins anew
    open_ = true;
    progress_at_ = loop_.now();
    disk_lost_ = takeover_ = false;
    left_ = rng_.between(10, 120);
    Scope tasks;
    if (options_.varies && rng_.one_in(8)) tasks.spawn(outage());
    for (uint64_t part = 0; part < 3; ++part) tasks.spawn(change(part));
    for (int i = 0; i < 2; ++i) tasks.spawn(flush_now_and_then());
    tasks.spawn(read_now_and_then());
    if (takes_snapshots_) tasks.spawn(snapshot_now_and_then());
    co_await tasks.close();
  }

  /// The disk changes what is in the cache, or in its index.
  void rot_cache() {
    const char* const file = rng_.one_in(8) ? "cache.index" : "cache.blocks";
    const std::vector<std::byte>* const bytes = disks_[host_]->contents(file);
    if (bytes == nullptr || bytes->empty() || rng_.one_in(2)) return;
    disks_[host_]->flip_bit(file, rng_.below(bytes->size()), static_cast<unsigned>(rng_.below(8)));
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
    result_.cache_hits += volume_->state().cache.hits;
    result_.cache_damaged += volume_->state().cache.damaged;
    const Result<void> closed = co_await volume_->close(stop.get_token());
    if (closed && !dead_) flushed_ = published_ = last_;
    if (closed) note_seen();
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

  // --- a store that shows an older state

  struct OlderState {
    uint64_t version = 0;
    /// The head alone, or all.
    std::map<std::string, SimStore::Object, std::less<>> objects;
  };

  void keep_state() {
    if (!options_.rolls_back) return;
    const auto head = store_.objects().find("vol/head");
    if (head == store_.objects().end()) return;
    const Result<objstore::Head> decoded = objstore::decode_unproven(head->second.data);
    if (!decoded) return;  // changed on purpose
    if (states_.size() == 8) states_.pop_front();
    OlderState& taken =
        states_.emplace_back(OlderState{.version = decoded->version, .objects = {}});
    if (rng_.one_in(4)) {
      taken.objects = store_.objects();
    } else {
      taken.objects.emplace(head->first, head->second);
    }
  }

  /// This host has on its disk that the store had this head.
  void note_seen() {
    if (dead_ || faulty() || mutated_) return;
    seen_[host_] = std::max(seen_[host_], volume_->state().head.version);
  }

  [[nodiscard]] bool may_roll_back() {
    return result_.broken_promise.empty() && !disk_lost_ && !states_.empty() &&
           loop_.now() >= store_.away_until();
  }

  Task<bool> roll_back() {
    const OlderState& older = states_[rng_.below(states_.size())];
    if (older.version >= seen_[host_]) co_return true;
    crash_in_ = 0;
    auto newer = store_.objects();
    if (older.objects.size() > 1) {
      store_.objects() = older.objects;
    } else {
      store_.objects()["vol/head"] = older.objects.begin()->second;
    }
    std::string said = "injected";
    for (int attempt = 0; attempt < 50 && said.contains("injected"); ++attempt) {
      folder_ = disks_[host_]->attach();
      connect();
      dead_ = false;
      const objstore::VolumeParts parts = volume_parts();
      Result<std::unique_ptr<Volume>> opened = co_await Volume::open(parts, volume_options());
      said = opened ? "" : opened.error().message();
      store_.kill(life_in_store_);
      disks_[host_]->kill_process();
      dead_ = true;
      if (opened) {
        (*opened)->abandon();
        std::stop_source stop;
        stop.request_stop();
        static_cast<void>(co_await (*opened)->close(stop.get_token()));  // it is dead
      }
    }
    if (said.contains("older state")) {
      ++result_.rolled_back;
    } else {
      broken(fmt::format("the store shows version {} of the head, this host has seen {}: {}",
                         older.version, seen_[host_], said.empty() ? "it is opened" : said));
    }
    store_.objects() = std::move(newer);
    co_return true;
  }

  // --- the image
  // ----------------------------------------------------------------------------------

  void check(const std::string& wrong) {
    if (wrong.empty()) return;
    if (result_.broken_promise.empty()) ++result_.prefix_violations;
    broken(wrong);
  }

  Task<void> check_image() {
    const uint64_t recovered = volume_->state().last_number;
    if (recovered < flushed_) {
      ++result_.lost_flushes;
      broken(fmt::format("it goes on after change {}, but {} was flushed", recovered, flushed_));
      co_return;
    }
    if (recovered > last_) {
      broken(fmt::format("it goes on after change {}, but {} was the last", recovered, last_));
      co_return;
    }
    if (may_be_refused()) {
      co_await check_blocks(recovered);
    } else {
      co_await check_whole(recovered);
    }
    if (dead_ || !result_.broken_promise.empty()) co_return;
    model_.forget_after(recovered);
    last_ = recovered;
    const bool sure = !disk_lost_ && !harmed_[host_];
    if (options_.mode == FlushMode::kLocal && sure) flushed_ = std::max(flushed_, recovered);
    published_ = std::min(std::max(published_, volume_->head().published_number), last_);
  }

  Task<void> check_whole(uint64_t recovered) {
    AlignedBuffer memory(kVolumeBlocks * kBlockBytes);
    const Result<void> read = co_await read_patiently(0, memory.bytes());
    if (dead_) co_return;
    if (read) {
      check(model_.check(0, memory.bytes(), recovered, recovered));
    } else if (!faulty()) {
      broken("the image cannot be read: " + read.error().message());
    }
  }

  Task<Result<void>> read_patiently(uint64_t block, MutableBytes out) {
    const unsigned attempts_max = may_be_refused() ? 10 : 200;
    // In pieces: one request of the store in some fails, and a read may need many.
    for (unsigned attempts = 0; !out.empty();) {
      const MutableBytes piece = out.first(std::min(out.size(), 2 * kBlockBytes));
      std::optional<Result<void>> at_once = volume_->try_read(block, piece);
      if (!at_once) at_once = co_await volume_->read(block, piece);
      const Result<void> read = *std::move(at_once);
      if (dead_) co_return read;
      if (read) {
        out = out.subspan(piece.size());
        block += piece.size() / kBlockBytes;
        attempts = 0;
      } else if (!objects::is_transient(read.error())) {
        co_return read;
      } else if (loop_.now() < store_.away_until()) {
        co_await loop_.sleep_for(kSecond);
      } else if (++attempts == attempts_max) {
        co_return read;
      }
    }
    co_return Result<void>();
  }

  // --- the client
  // ---------------------------------------------------------------------------------

  [[nodiscard]] bool over() const { return dead_ || left_ == 0 || !result_.broken_promise.empty(); }

  /// Whoever writes may have to wait, but not for longer than the store is away, and a bit.
  void expect_progress() {
    if (dead_ || loop_.now() < std::max(progress_at_, store_.away_until()) + kStuckAfter) return;
    broken("changes wait for ever; the journal: " + volume_->state().journal_failure);
    die();
  }

  Task<void> pause() {
    expect_progress();
    uint64_t longest = rng_.one_in(8) ? 400'000'000 : 3'000'000;
    // While changes have to wait, as they do in an outage, there is little to be tried again.
    longest += static_cast<uint64_t>((loop_.now() - progress_at_).count()) / 8;
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
        if (!dead_ && !faulty()) broken("a change failed: " + number.error().message());
        left_ = 0;
        co_return;
      }
      changed_here_ = true;
      note(range, *number, stamp);
      if (rng_.one_in(3)) co_await pause();
    }
  }

  void note(BlockRange range, uint64_t number, uint64_t stamp) {
    if (number <= last_) broken(fmt::format("change {} was numbered twice", number));
    last_ = std::max(last_, number);
    progress_at_ = loop_.now();
    ++result_.changes;
    model_.note(range, number, stamp);
  }

  Task<void> flush_now_and_then() {
    while (!over()) {
      co_await pause();
      if (over()) co_return;
      const uint64_t covered = last_;
      if (covered == flushed_ || flush_failed_) co_await loop_.sleep_for(kSecond / 20);
      if (over()) co_return;
      const Result<void> flushed = co_await volume_->flush();
      if (dead_) co_return;
      if (!flushed) {
        if (!faulty()) broken("a flush failed: " + flushed.error().message());
        flush_failed_ = true;
        ++result_.refused_flushes;
        continue;
      }
      if (flush_failed_) broken("a flush succeeded after one had failed");
      // What a failed sync left of an earlier life may be there and yet not be durable.
      if (!harmed_[host_] || changed_here_) flushed_ = std::max(flushed_, covered);
      published_ = std::max(published_, volume_->head().published_number);
      note_seen();
      if (rng_.one_in(8)) keep_state();
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
      if (rng_.one_in(4)) rot_cache();
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
        if (!may_be_refused()) broken("a read failed: " + read.error().message());
        continue;
      }
      ++result_.reads;
      check(model_.check(block, out, before, last_));
    }
  }

  // --- snapshots

  Task<void> snapshot_now_and_then() {
    while (!over()) {
      co_await loop_.sleep_for(Nanos(static_cast<int64_t>(snapshot_rng_.below(400'000'000))));
      if (!over()) co_await order_something();
    }
    // Now that nothing is written: some that have much in common.
    const bool goes_on = snapshot_rng_.one_in(2);
    for (int i = 0; goes_on && i < 3 && !dead_ && result_.broken_promise.empty(); ++i) {
      co_await order_something();
    }
  }

  Task<void> order_something() {
    order_since_ = loop_.now();
    Scope watch;
    watch.spawn(expect_order());
    const std::optional<uint64_t> some = draw_snapshot();
    if (!some || snapshot_rng_.one_in(2)) {
      co_await take_snapshot();
    } else if (snapshot_rng_.one_in(2)) {
      co_await delete_snapshot(*some);
    } else {
      co_await compare(snapshots_.all().at(*some));
    }
    order_since_.reset();
    co_await watch.close();
  }

  /// It takes its time, but not for ever.
  Task<void> expect_order() {
    while (order_since_ && !dead_) {
      co_await loop_.sleep_for(kSecond);
      if (!order_since_ || dead_) co_return;
      if (loop_.now() < std::max(*order_since_, store_.away_until()) + kStuckAfter) continue;
      broken("a snapshot takes for ever");
      die();
    }
  }

  std::optional<uint64_t> draw_snapshot() {
    if (snapshots_.all().empty()) return std::nullopt;
    const auto at = static_cast<int64_t>(snapshot_rng_.below(snapshots_.all().size()));
    const uint64_t number = std::next(snapshots_.all().begin(), at)->first;
    return snapshots_.is_there(number) ? std::optional(number) : std::nullopt;
  }

  Task<void> take_snapshot() {
    objstore::SnapshotLabel label{.name = snapshots_.asked(), .time = 1 + result_.snapshots};
    const uint64_t before = last_;
    const Result<objstore::SnapshotRef> taken = co_await volume_->snapshot(std::move(label));
    if (!taken) {
      ++result_.snapshots_cut_off;
      if (!dead_ && !may_be_refused()) broken("a snapshot failed: " + taken.error().message());
      co_return;
    }
    ++result_.snapshots;
    check(snapshots_.taken(*taken, before));
    published_ = std::max(published_, taken->last_write);
    if (snapshot_rng_.one_in(4)) co_await compare(*taken);
  }

  Task<void> delete_snapshot(uint64_t number) {
    snapshots_.leaves(number);
    const Result<void> deleted = co_await volume_->delete_snapshot(number);
    if (deleted) {
      ++result_.snapshots_deleted;
      snapshots_.left(number);
    } else if (!dead_ && !may_be_refused() && !objects::is_transient(deleted.error()) &&
               !was_injected(deleted.error())) {
      broken("a snapshot cannot be deleted: " + deleted.error().message());
    }
  }

  Task<void> compare(objstore::SnapshotRef snapshot) {
    if (mutated_) co_return;
    ++result_.snapshots_compared;
    const Bytes key = is_encrypted() ? Bytes(key_) : Bytes();
    const std::string wrong = co_await compare_snapshot(store_, "vol", key, snapshot, model_);
    // An object may have been changed meanwhile.
    if (!mutated_) check(wrong);
  }

  Task<bool> compare_all() {
    const std::map<uint64_t, objstore::SnapshotRef> all = snapshots_.all();
    for (const auto& [number, snapshot] : all) {
      const bool there = snapshots_.is_there(number);
      if (there && result_.broken_promise.empty()) co_await compare(snapshot);
    }
    co_return true;
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
  SnapshotOracle snapshots_;
  SeededRng snapshot_rng_{mix64(options_.seed + 7)};
  bool takes_snapshots_ = options_.snapshots_one_in > 0 &&
                          snapshot_rng_.one_in(options_.snapshots_one_in);
  std::optional<Nanos> order_since_;
  size_t host_ = 0;
  uint64_t life_in_store_ = 0;
  uint64_t life_ = 0;
  uint64_t last_ = 0;
  uint64_t flushed_ = 0;
  uint64_t published_ = 0;
  uint64_t left_ = 0;
  uint64_t crash_in_ = 0;
  Nanos progress_at_{0};
  uint64_t faults_before_ = 0;
  std::array<std::byte, 32> key_{};
  crypto::CipherMode cipher_ = crypto::CipherMode::kIdentity;
  Mutator mutator_{store_, rng_};
  bool retries_ = false;
  /// A change was made in this life; a flush failed in it.
  bool changed_here_ = false;
  bool flush_failed_ = false;
  /// An object is not what was stored.
  bool mutated_ = false;
  /// One opening has misread the journal.
  bool misread_ = false;
  uint64_t flushed_before_ = 0;
  std::deque<OlderState> states_;
  /// By host: the version of the head that it has seen for sure; its journal has rotted; a call
  /// failed while it was in use.
  std::array<uint64_t, 2> seen_{};
  std::array<bool, 2> rotten_{};
  std::array<bool, 2> harmed_{};
  /// Only events of this phase count.
  std::optional<VolumePhase> aim_;
  bool power_ = false;
  bool only_when_open_ = false;
  bool dead_ = false;
  bool open_ = false;
  bool lose_disk_ = false;
  bool disk_lost_ = false;
  bool takeover_ = false;
  bool keeps_cache_ = false;
};

}  // namespace

const char* volume_phase_name(VolumePhase phase) {
  constexpr std::array<const char*, kVolumePhases> kNames = {
      "opening", "journal write", "journal sync", "superblock", "upload", "publish",
      "fetch",   "checkpoint",    "clean",        "delete",     "other"};
  return kNames[static_cast<size_t>(phase)];
}

void VolumeHistoryResult::add_kinds(const VolumeHistoryResult& other) {
  const auto add = [](auto& to, const auto& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  };
  add(phases, other.phases);
  add(troubles, other.troubles);
  add(rots, other.rots);
  add(mutations, other.mutations);
}

VolumeHistoryResult run_volume_history(VolumeHistoryOptions options) {
  return VolumeHistory(options).run();
}

}  // namespace usbd::sim
