// SPDX-License-Identifier: Apache-2.0
//
// The order of a run. What is a failure is decided in model.cc and refusals.cc.

#include "conformance/runner.h"

#include <algorithm>
#include <bit>

#include <fmt/core.h>

#include "conformance/refusals.h"

namespace usbd::testing {
namespace {

constexpr size_t kHistoryMax = 4'096;
/// Of a read where faults are injected.
constexpr unsigned kAttemptsMax = 1'000;
constexpr size_t kHistoryShown = 6;
/// A flush is sent when so many changes since the last one are remembered.
constexpr size_t kLogMax = 600;
/// Full reads between the first and the last.
constexpr uint64_t kVerifications = 4;
constexpr uint64_t kReadPart = 1U << 20;

Model::Options model_options(const SubjectTraits& traits, const std::vector<ByteRange>& windows) {
  return {.size = traits.size,
          .block_size = traits.block_size,
          .payload_max = traits.payload_max,
          .trim_zeroes = traits.trim_zeroes,
          .orders_overlaps = traits.orders_overlaps,
          .merges_extents = traits.merges_extents,
          .keeps_log = traits.can_crash || traits.may_fail,
          .windows = windows};
}

bool touches(const Operation& op, uint64_t offset) {
  return op.kind == OpKind::kFlush || (op.offset <= offset && offset - op.offset < op.length);
}

}  // namespace

Runner::Runner(Subject& subject, const ConformanceOptions& options)
    : subject_(subject),
      options_(options),
      traits_(subject.traits()),
      windows_(choose_windows(traits_, options.span_max)),
      generator_(traits_, options_, windows_),
      rng_(SeededRng(options.seed).fork(1)),
      model_(model_options(traits_, windows_)) {
  report_.subject = traits_.name;
  report_.seed = options.seed;
  report_.operations_wanted = options.operations;
  next_reopen_ = options.reopen_every;
  next_crash_ = options.crash_every;
}

ConformanceReport Runner::run() {
  const bool went_well = check_traits() && load_contents() && try_refusals() && run_batches();
  if (went_well) finish();
  report_.overlaps = model_.overlaps();
  return report_;
}

Runner::Step Runner::check_traits() {
  if (traits_.size == 0) return fail("the volume's size is 0");
  if (!std::has_single_bit(traits_.block_size)) {
    return fail(fmt::format("block size {} is no power of two", traits_.block_size));
  }
  if (traits_.size % traits_.block_size != 0) {
    return fail(fmt::format("size {} is no multiple of the block size {}", traits_.size,
                            traits_.block_size));
  }
  if (traits_.payload_max < traits_.block_size || traits_.connections == 0) {
    return fail("the largest payload is smaller than a block, or there is no connection");
  }
  return true;
}

Runner::Step Runner::load_contents() {
  const uint64_t part_max =
      std::max<uint64_t>(std::min<uint64_t>(kReadPart, traits_.payload_max), traits_.block_size);
  for (const ByteRange& window : windows_) {
    for (uint64_t at = window.offset; at < window.end(); at += part_max) {
      std::vector<Operation> read(1);
      read[0].offset = at;
      read[0].length = std::min(part_max, window.end() - at);
      read[0].data.assign(read[0].length, std::byte{0xA5});
      if (!read_surely(read)) return false;
      model_.load(at, read[0].data);
    }
  }
  return true;
}

Runner::Step Runner::try_refusals() {
  for (Operation& refused : refused_operations(traits_)) {
    give_payload(refused, std::byte{0xEE});
    std::vector<Operation> batch;
    batch.push_back(std::move(refused));
    if (!perform(batch)) return false;
    std::vector<Operation> after(1);
    after[0].length = std::min<uint64_t>(traits_.size, std::max(512U, traits_.block_size));
    after[0].data.assign(after[0].length, std::byte{0xA5});
    if (!perform(after)) return false;
  }
  report_.operations = 0;
  report_.by_kind.fill(0);
  return true;
}

Runner::Step Runner::run_batches() {
  const uint64_t verify_every = options_.operations / (kVerifications + 1) + 1;
  for (uint64_t next_verify = verify_every; report_.operations < options_.operations;) {
    if (!run_batch() || !limit_log()) return false;
    if (report_.operations >= next_verify) {
      if (!verify_all()) return false;
      next_verify += verify_every;
    }
  }
  return true;
}

Runner::Step Runner::run_batch() {
  std::vector<Operation> batch = generator_.next_batch();
  if (traits_.can_crash && options_.crash_every > 0 && report_.operations >= next_crash_) {
    next_crash_ += rng_.between(1, options_.crash_every * 2);
    return crash_under(batch);
  }
  if (traits_.can_reopen && options_.reopen_every > 0 && report_.operations >= next_reopen_) {
    next_reopen_ += rng_.between(1, options_.reopen_every * 2);
    if (!reopen()) return false;
  }
  return perform(batch);
}

Runner::Step Runner::perform(std::vector<Operation>& batch) {
  if (!send(batch) || !judge(batch)) return false;
  if (const auto finding = model_.apply(batch)) return fail(*finding, batch);
  return settle();
}

/// Sends reads; where faults are injected, again until each has gone well.
Runner::Step Runner::read_surely(std::vector<Operation>& reads) {
  if (!send(reads) || !judge(reads)) return false;
  for (Operation& read : reads) {
    for (unsigned attempt = 0; read.error != 0; ++attempt) {
      if (attempt == kAttemptsMax) return fail("a read failed again and again: " + describe(read));
      std::vector<Operation> again;
      again.push_back(std::move(read));
      again[0].error = 0;
      const bool went_well = send(again) && judge(again);
      read = std::move(again[0]);
      if (!went_well) return false;
    }
  }
  return true;
}

Runner::Step Runner::send(std::vector<Operation>& batch) {
  const Result<void> sent = subject_.execute(batch);
  count(batch);
  if (sent) return true;
  return fail(fmt::format("no answers: {}", sent.error().message()));
}

Runner::Step Runner::judge(const std::vector<Operation>& batch) {
  for (size_t i = 0; i < batch.size(); ++i) {
    const Operation& op = batch[i];
    if (auto wrong = judge_answer(traits_, op)) {
      return fail(Finding{.text = *std::move(wrong), .operation = i, .offset = op.offset}, batch);
    }
    if (op.error != 0) ++report_.refused;
  }
  return true;
}

Runner::Step Runner::settle() {
  std::vector<Operation> reads = model_.settling_reads();
  if (reads.empty()) return true;
  if (!read_surely(reads)) return false;
  if (const auto finding = model_.settle(reads)) return fail(*finding, reads);
  return true;
}

/// What was in flight when the power went has failed, or has not: both are right.
Runner::Step Runner::crash_under(std::vector<Operation>& batch) {
  const Result<void> opened = subject_.crash(batch);
  count(batch);
  ++report_.crashes;
  if (!opened) return fail("opening after a crash: " + opened.error().message());
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto wrong = batch[i].error == 0 ? judge_answer(traits_, batch[i]) : std::nullopt;
    if (wrong) return fail(Finding{.text = *wrong, .operation = i, .offset = {}}, batch);
  }
  if (const auto finding = model_.apply(batch)) return fail(*finding, batch);
  model_.crashed();
  if (!settle()) return false;
  return report_.crashes % 4 != 0 || verify_all();
}

Runner::Step Runner::reopen() {
  const Result<void> opened = subject_.reopen();
  ++report_.reopens;
  if (!opened) return fail("reopening: " + opened.error().message());
  const SubjectTraits traits = subject_.traits();
  if (traits.size != traits_.size) {
    return fail(
        fmt::format("the size is {} after reopening, and was {}", traits.size, traits_.size));
  }
  // The last flush, by closing, may have failed too.
  if (traits_.may_fail) model_.reopened_after_failure();
  if (!settle()) return false;
  return verify_all();
}

Runner::Step Runner::limit_log() {
  if (model_.changes_logged() < kLogMax || !traits_.can_flush) return true;
  std::vector<Operation> flush(1);
  flush[0].kind = OpKind::kFlush;
  return perform(flush);
}

Runner::Step Runner::finish() {
  if (!verify_all()) return false;
  if (!traits_.can_reopen || options_.reopen_every == 0) return true;
  return reopen();
}

Runner::Step Runner::verify_all() {
  const uint64_t part_max =
      std::max<uint64_t>(std::min<uint64_t>(kReadPart, traits_.payload_max), traits_.block_size);
  const uint64_t operations = report_.operations;
  for (const ByteRange& window : windows_) {
    for (uint64_t at = window.offset; at < window.end(); at += part_max) {
      std::vector<Operation> read(1);
      read[0].offset = at;
      read[0].length = std::min(part_max, window.end() - at);
      read[0].data.assign(read[0].length, std::byte{0xA5});
      if (!perform(read)) return false;
    }
  }
  report_.operations = operations;
  return true;
}

void Runner::count(const std::vector<Operation>& batch) {
  for (const Operation& op : batch) {
    ++report_.operations;
    ++report_.by_kind[static_cast<size_t>(op.kind)];
    if (op.kind == OpKind::kRead && op.error == 0) report_.bytes_read += op.length;
    if (op.kind == OpKind::kWrite && op.error == 0) report_.bytes_written += op.length;
    uint64_t digest = mix64(op.offset * 8 + static_cast<uint64_t>(op.kind)) ^ mix64(op.length);
    digest ^= static_cast<uint64_t>(op.error) << 32U;
    for (size_t i = 0; i < op.data.size(); i += 509) {
      digest = (digest ^ static_cast<uint64_t>(op.data[i])) * 0x100000001B3U;
    }
    report_.fingerprint = mix64(report_.fingerprint ^ digest);
    Operation& kept = history_.emplace_back();
    kept.kind = op.kind;
    kept.connection = op.connection;
    kept.offset = op.offset;
    kept.length = op.length;
    kept.fua = op.fua;
    kept.no_hole = op.no_hole;
    kept.fast_only = op.fast_only;
    kept.error = op.error;
  }
  while (history_.size() > kHistoryMax) history_.pop_front();
}

Runner::Step Runner::fail(std::string what) {
  report_.failure = std::move(what);
  return false;
}

Runner::Step Runner::fail(const Finding& finding, const std::vector<Operation>& batch) {
  std::string text = fmt::format("{}\n  request: {} (one of {} in flight)", finding.text,
                                 describe(batch[finding.operation]), batch.size());
  if (finding.offset) {
    text += fmt::format("\n  at offset {}\n  the last requests that touched it, newest last:{}",
                        *finding.offset, history_of(*finding.offset));
  }
  return fail(std::move(text));
}

std::string Runner::history_of(uint64_t offset) const {
  std::vector<std::string> shown;
  uint64_t age = 0;
  for (auto op = history_.rbegin(); op != history_.rend() && shown.size() < kHistoryShown; ++op) {
    if (touches(*op, offset)) shown.push_back(fmt::format("{} before: {}", age, describe(*op)));
    ++age;
  }
  std::string text;
  for (auto line = shown.rbegin(); line != shown.rend(); ++line) text += "\n    " + *line;
  return text.empty() ? " none" : text;
}

}  // namespace usbd::testing
