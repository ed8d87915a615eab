// SPDX-License-Identifier: Apache-2.0
//
// What must be there when a life begins is read from the head itself, as it lies in the store: if
// it names the journal into which was flushed, and this is the host that has it, all of that; else
// what was published.

#include "sim/volume_script.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "sim/image_model.h"
#include "sim/sim_store.h"
#include "sim/toy_sealer.h"

namespace usbd::sim {
namespace {

using objstore::BlockRange;
using objstore::ExtentKind;
using objstore::FlushMode;
using objstore::Head;
using objstore::kBlockBytes;
using objstore::Volume;
using Kind = ScriptStep::Kind;
using End = ScriptLife::End;

constexpr uint64_t kBlocks = 16;
constexpr uint32_t kWriteBlocksMax = 4;
constexpr Nanos kMilli{1'000'000};

class ScriptRun {
 public:
  ScriptRun(const Script& script, const ScriptPlan& plan)
      : script_(script),
        plan_(plan),
        rng_(mix64(plan.seed)),
        loop_({.seed = plan.seed}),
        store_(loop_, {.seed = mix64(plan.seed + 1), .of_the_dead = plan.of_the_dead}) {
    for (size_t i = 0; i < disks_.size(); ++i) {
      const SimDisk::Options options{.seed = mix64(plan.seed + 2 + i),
                                     .of_the_dead = plan.of_the_dead};
      disks_[i] = std::make_unique<SimDisk>(loop_, options);
      disks_[i]->on_event([this](const DiskEvent& /*event*/) { at_event(); });
    }
    store_.on_event([this](uint64_t /*life*/, const StoreEvent& /*event*/) { at_event(); });
  }

  ScriptOutcome run() {
    for (const ScriptLife& life : script_.lives) {
      play(life);
      if (crashed_ && plan_.begins_again) play(after_crash(life));
      // The crash of a recovery is recovered from, too.
      if (crashed_ && plan_.begins_again) play(after_crash(life));
    }
    play({.host = script_.lives.back().host, .takeover = true, .steps = {}});
    outcome_.events = events_;
    return outcome_;
  }

 private:
  void broken(const std::string& how) {
    if (how.empty() || !outcome_.broken_promise.empty()) return;
    outcome_.broken_promise = fmt::format("{}: {}", to_text(script_, plan_), how);
  }

  static ScriptLife after_crash(const ScriptLife& life) {
    return {.host = life.host,
            .takeover = life.takeover,
            .steps = {{.kind = Kind::kWrite, .block = 1}, {.kind = Kind::kFlush}},
            .end = End::kPowerCut};
  }

  // --- crashes

  void at_event() {
    ++events_;
    if (outcome_.crashes == plan_.crashes.size()) return;
    const Crash& next = plan_.crashes[outcome_.crashes];
    if (events_ != next.event) return;
    ++outcome_.crashes;
    crashed_ = true;
    outcome_.unsynced = disks_[host_]->unsynced();
    die(next);
  }

  void die(const Crash& crash) {
    SimDisk& disk = *disks_[host_];
    dead_ = true;
    store_.kill(store_.last_life());
    if (crash.power) {
      disk.cut_power(crash.cut);
    } else {
      disk.kill_process();
    }
    loop_.spawn(wind_up());
  }

  Task<void> wind_up() {
    if (volume_) volume_->abandon();
    co_return;
  }

  // --- one life

  void play(const ScriptLife& life) {
    if (!outcome_.broken_promise.empty()) return;
    crashed_ = dead_ = false;
    host_ = life.host;
    if (!loop_.run(live(life))) broken("it hangs");
    loop_.run_until_idle();
    // As its owner would, who has read why it was refused.
    if (std::exchange(busy_, false) && !life.takeover) {
      ScriptLife again = life;
      again.takeover = true;
      play(again);
    }
  }

  [[nodiscard]] objstore::VolumeOptions volume_options(bool takeover) const {
    objstore::VolumeOptions options;
    options.name = "vol";
    options.size = kBlocks * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = plan_.mode;
    options.object_bytes = 4 * kBlockBytes;
    options.flush_every = 40 * kMilli;
    options.journal_bytes = script_.ring_blocks * journal::kBlock;
    options.journal_payload_max = kWriteBlocksMax;
    options.uploads_max = 2;
    options.takeover = takeover;
    options.space = script_.space;
    options.broken_rule = plan_.broken_rule;
    options.broken_journal_rule = plan_.broken_journal_rule;
    return options;
  }

  Task<bool> live(ScriptLife life) {
    folder_ = disks_[host_]->attach();
    client_ = store_.attach();
    const uint64_t floor = must_be_there();
    const bool own = has_journal_of_head();
    const objstore::VolumeParts parts{
        .store = *client_, .folder = folder_.get(), .rng = rng_, .journal_sealer = toy_sealer};
    Result<std::unique_ptr<Volume>> opened =
        co_await Volume::open(parts, volume_options(life.takeover));
    if (opened) {
      volume_ = *std::move(opened);
      done_ = {};
      co_await check_image(floor);
      for (const ScriptStep& step : life.steps) {
        if (!dead_ && outcome_.broken_promise.empty()) co_await make(step);
      }
      co_await end(life);
    } else if (!dead_) {
      busy_ = opened.error().is(Errc::kBusy);
      if (busy_) ++outcome_.refused;
      if (!busy_ || own || life.takeover) broken("opening failed: " + opened.error().message());
    }
    volume_.reset();
    if (!dead_) die({});
    co_return true;
  }

  Task<void> end(ScriptLife life) {
    std::stop_source stop;
    if (!dead_ && life.end != End::kClose) die({.power = life.end == End::kPowerCut});
    if (dead_) stop.request_stop();
    const Result<void> closed = co_await volume_->close(stop.get_token());
    if (dead_) co_return;
    if (!closed) broken("it cannot be closed: " + closed.error().message());
    note_flushed(last_);
  }

  // --- the model

  [[nodiscard]] std::optional<Head> stored_head() {
    const auto found = store_.objects().find("vol/head");
    if (found == store_.objects().end()) return std::nullopt;
    Result<Head> head = objstore::decode(found->second.data, {});
    if (!head) broken("the head cannot be read: " + head.error().message());
    return head ? std::optional<Head>(*head) : std::nullopt;
  }

  [[nodiscard]] bool has_journal_of_head() {
    const std::optional<Head> head = stored_head();
    if (!head) return true;
    const std::string name = fmt::format("journal-{}.ring", journal::to_hex(head->journal));
    return disks_[host_]->contents(name) != nullptr || head->clean;
  }

  [[nodiscard]] uint64_t must_be_there() {
    const std::optional<Head> head = stored_head();
    if (!head) return 0;
    if (plan_.mode == FlushMode::kRemote && head->published_number < flushed_) {
      broken(fmt::format("{} was flushed, but {} is published", flushed_, head->published_number));
    }
    const bool here = head->journal == flushed_journal_ && host_ == flushed_host_;
    return plan_.mode == FlushMode::kLocal && here ? flushed_ : head->published_number;
  }

  void note_flushed(uint64_t number) {
    flushed_ = std::max(flushed_, number);
    flushed_journal_ = volume_->head().journal;
    flushed_host_ = host_;
  }

  Task<void> check_image(uint64_t floor) {
    const uint64_t recovered = volume_->state().last_number;
    if (recovered < floor || recovered > last_) {
      broken(fmt::format("it goes on after change {}, but {} must be there, and {} was the last",
                         recovered, floor, last_));
      co_return;
    }
    AlignedBuffer memory(kBlocks * kBlockBytes);
    const Result<void> read = co_await volume_->read(0, memory.bytes());
    if (dead_) co_return;
    if (!read) {
      broken("the image cannot be read: " + read.error().message());
      co_return;
    }
    broken(model_.check(0, memory.bytes(), recovered, recovered));
    model_.forget_after(recovered);
    last_ = recovered;
    flushed_ = 0;
    if (plan_.mode == FlushMode::kLocal) note_flushed(recovered);
    if (plan_.mode == FlushMode::kRemote) note_flushed(volume_->head().published_number);
  }

  // --- steps

  Task<void> make(ScriptStep step) {
    const bool changes =
        step.kind == Kind::kWrite || step.kind == Kind::kFua || step.kind == Kind::kClear;
    if (step.kind == Kind::kPause) {
      co_await loop_.sleep_for(100 * kMilli);
    } else if (changes) {
      co_await change(step);
      if (step.kind == Kind::kFua && !dead_) co_await make_durable(Kind::kFlush);
    } else if (step.kind == Kind::kFlush || step.kind == Kind::kPublish) {
      co_await make_durable(step.kind);
    } else {
      co_await wait_for(step.kind);
    }
  }

  [[nodiscard]] uint64_t done(Kind kind) {
    const objstore::VolumeState state = volume_->state();
    if (kind == Kind::kCheckpoint) return state.checkpoints_made;
    return kind == Kind::kClean ? state.objects_cleaned : state.objects_deleted;
  }

  /// What the volume does of its own accord.
  Task<void> wait_for(Kind kind) {
    uint64_t& before = done_[static_cast<size_t>(kind)];
    for (int i = 0; i < 400 && !dead_ && done(kind) <= before; ++i) {
      co_await loop_.sleep_for(10 * kMilli);
    }
    if (dead_) co_return;
    const bool came = done(kind) > before;
    before = done(kind);
    // After a crash there may be nothing to be done.
    if (!came && plan_.crashes.empty()) {
      broken(fmt::format("step {} never comes", static_cast<unsigned>(kind)));
    }
  }

  Task<void> change(ScriptStep step) {
    const BlockRange range(step.block, step.blocks);
    const uint64_t stamp = step.kind == Kind::kClear ? 0 : model_.draw_stamp();
    AlignedBuffer memory(step.blocks * kBlockBytes);
    ImageModel::fill(memory.bytes(), step.block, stamp);
    Result<uint64_t> number{uint64_t{0}};
    if (step.kind == Kind::kClear) {
      number = co_await volume_->clear(range, ExtentKind::kTrim);
    } else {
      number = co_await volume_->write(step.block, memory.bytes());
    }
    if (!number) {
      if (!dead_) broken("a change failed: " + number.error().message());
      co_return;
    }
    last_ = *number;
    model_.note(range, *number, stamp);
  }

  Task<void> make_durable(Kind kind) {
    const uint64_t covered = last_;
    Result<void> done;
    if (kind == Kind::kFlush) {
      done = co_await volume_->flush();
    } else {
      done = co_await volume_->publish_all();
    }
    if (dead_) co_return;
    if (!done) broken("a flush failed: " + done.error().message());
    note_flushed(covered);
  }

  const Script& script_;
  const ScriptPlan& plan_;
  ScriptOutcome outcome_;
  SeededRng rng_;
  SimLoop loop_;
  SimStore store_;
  std::array<std::unique_ptr<SimDisk>, 2> disks_;
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<objects::ObjectStore> client_;
  std::unique_ptr<Volume> volume_;
  ImageModel model_{kBlocks};
  size_t host_ = 0;
  uint64_t events_ = 0;
  uint64_t last_ = 0;
  uint64_t flushed_ = 0;
  objstore::Nonce flushed_journal_{};
  size_t flushed_host_ = 0;
  std::array<uint64_t, 9> done_{};
  bool crashed_ = false;
  bool dead_ = false;
  bool busy_ = false;
};

ScriptStep write(uint64_t block, uint64_t blocks = 1) {
  return {.kind = Kind::kWrite, .block = block, .blocks = blocks};
}
ScriptStep trim(uint64_t block, uint64_t blocks) {
  return {.kind = Kind::kClear, .block = block, .blocks = blocks};
}
constexpr ScriptStep kFlush{.kind = Kind::kFlush};
constexpr ScriptStep kPublish{.kind = Kind::kPublish};
constexpr ScriptStep kPause{.kind = Kind::kPause};
constexpr ScriptStep kCheckpoint{.kind = Kind::kCheckpoint};
constexpr ScriptStep kClean{.kind = Kind::kClean};
constexpr ScriptStep kDelete{.kind = Kind::kDelete};
ScriptStep fua(uint64_t block, uint64_t blocks = 1) {
  return {.kind = Kind::kFua, .block = block, .blocks = blocks};
}

/// A checkpoint after each object.
objstore::SpaceRules often() {
  objstore::SpaceRules rules;
  rules.replay_objects = 1;
  rules.clean.target = 0;
  rules.clean.small_objects = 0;
  rules.delete_after = 20 * kMilli;
  return rules;
}

/// What is mostly dead is cleaned at once, and deleted soon.
objstore::SpaceRules tidy() {
  objstore::SpaceRules rules = often();
  rules.clean.target = 1.05;
  rules.clean.waste_min = kBlockBytes;
  return rules;
}

/// More than the ring holds.
std::vector<ScriptStep> many_writes(uint64_t count) {
  std::vector<ScriptStep> steps;
  for (uint64_t i = 0; i < count; ++i) {
    steps.push_back(write(i * 3 % (kBlocks - 3), 1 + i % kWriteBlocksMax));
    if (i % 3 == 2) steps.push_back(kFlush);
  }
  return steps;
}

std::vector<Script> make_scripts() {
  std::vector<Script> all;
  all.push_back({.name = "overlapping writes",
                 .lives = {{.steps = {write(0, 2), write(1, 2), kFlush, trim(2, 2), write(3),
                                      kFlush, write(0)},
                            .end = End::kKill},
                           {.steps = {write(5), kFlush}}}});
  all.push_back({.name = "publish",
                 .lives = {{.steps = {write(0, 4), write(4, 4), write(8, 4), kPause, kFlush,
                                      kPublish, write(2, 3), kFlush, write(1), kPause, write(6)},
                            .end = End::kPowerCut},
                           {.steps = {write(3), kPublish}}}});
  all.push_back({.name = "close",
                 .lives = {{.steps = {write(0, 2), kFlush, write(1)}},
                           {.steps = {trim(0, 1), write(4)}},
                           {.steps = {}}}});
  all.push_back(
      {.name = "takeover",
       .lives = {
           {.steps = {write(0, 3), kPublish, write(1), kFlush}, .end = End::kKill},
           {.host = 1, .takeover = true, .steps = {write(2), kFlush, kPublish}, .end = End::kClose},
           {.steps = {write(4), kFlush}, .end = End::kPowerCut}}});
  all.push_back(
      {.name = "takeover from a host that comes back",
       .lives = {{.steps = {write(0, 3), kFlush}, .end = End::kPowerCut},
                 {.host = 1, .takeover = true, .steps = {write(2), kFlush}, .end = End::kKill},
                 {.takeover = true, .steps = {write(4), kFlush}, .end = End::kKill},
                 {.host = 1, .takeover = true, .steps = {write(5)}}}});
  all.push_back({.name = "ring reuse",
                 .lives = {{.steps = many_writes(14), .end = End::kPowerCut},
                           {.steps = many_writes(6), .end = End::kKill},
                           {.steps = {write(0), kFlush}}},
                 .ring_blocks = 28});
  all.push_back({.name = "checkpoint",
                 .lives = {{.steps = {write(0, 4), kPublish, kCheckpoint, write(4, 2), write(0),
                                      kPublish, kCheckpoint, write(9), kFlush},
                            .end = End::kPowerCut},
                           {.steps = {write(3), kPublish, kCheckpoint}, .end = End::kKill},
                           {.host = 1, .takeover = true, .steps = {write(6), kFlush}}},
                 .space = often()});
  all.push_back({.name = "garbage collection",
                 .lives = {{.steps = {write(0, 4), write(4, 4), write(8, 4), kPublish, write(0, 3),
                                      write(4, 3), kPublish, write(1), kClean, write(2), kFlush,
                                      kDelete, write(7), kFlush},
                            .end = End::kKill},
                           {.steps = {write(5), kPublish, kDelete}, .end = End::kPowerCut},
                           {.steps = {write(3), kFlush}}},
                 .space = tidy()});
  all.push_back(
      {.name = "trim over batches",
       .lives = {{.steps = {write(0, 4), write(4, 4), write(8, 4), write(12, 2), fua(13),
                            trim(1, 13), kFlush, write(6, 2), trim(2, 5), fua(0, 2)},
                  .end = End::kPowerCut},
                 {.steps = {fua(5, 3), trim(0, 16), kPublish, fua(15)}, .end = End::kKill},
                 {.steps = {}}}});
  return all;
}

}  // namespace

const std::vector<Script>& scripts() {
  static const std::vector<Script> kAll = make_scripts();
  return kAll;
}

const Script& script_named(std::string_view name) {
  const auto found = std::ranges::find(scripts(), name, &Script::name);
  USBD_ASSERT(found != scripts().end());
  return *found;
}

std::string to_text(const Script& script, const ScriptPlan& plan) {
  std::string text = fmt::format("{}, {} flush, seed {}", script.name,
                                 plan.mode == FlushMode::kLocal ? "local" : "remote", plan.seed);
  for (const Crash& crash : plan.crashes) {
    text += fmt::format("; crash at event {} (", crash.event);
    text += crash.power ? fmt::format("power, kept {:#x}, torn {})", crash.cut.kept, crash.cut.torn)
                        : "kill)";
  }
  text += plan.of_the_dead == OfTheDead::kLands ? "; what was under way lands" : "";
  text += plan.begins_again ? "" : "; not begun again";
  return text;
}

ScriptOutcome run_script(const Script& script, const ScriptPlan& plan) {
  return ScriptRun(script, plan).run();
}

}  // namespace usbd::sim
