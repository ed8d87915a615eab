// SPDX-License-Identifier: Apache-2.0
//
// Taking batches into the model, and settling what they left open. Checks of what reads and extents
// returned: model_checks.cc.

#include "conformance/model.h"

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/assert.h"
#include "conformance/refusals.h"

namespace usbd::testing {
namespace {

/// Errors with which a request is turned away before anything is done.
bool is_refusal(int error) {
  return error == EINVAL || error == EPERM || error == EROFS || error == EOPNOTSUPP ||
         error == EOVERFLOW;
}

}  // namespace

void Model::load(uint64_t offset, Bytes data) {
  image_.write(offset, data);
  durable_.write(offset, data);
}

/// Whether `op` may have changed the volume.
bool Model::has_landed(const Operation& op) const {
  return is_change(op.kind) && !is_refusal(op.error) && op.length > 0 &&
         op.offset <= options_.size && op.length <= options_.size - op.offset;
}

Model::ChangePtr Model::take_change(Operation& op) const {
  auto change = std::make_shared<Change>();
  change->range = ByteRange(op.offset, op.length);
  if (op.kind == OpKind::kWrite) change->data = std::move(op.data);
  change->batch = batch_;
  change->fua = op.fua && op.error == 0;
  const bool may_keep = op.kind == OpKind::kTrim && !options_.trim_zeroes;
  change->certain = op.error == 0 && !may_keep;
  return change;
}

Model::ChangePtr Model::old_content(const SparseImage& image, ByteRange range) const {
  auto change = std::make_shared<Change>();
  change->range = range;
  change->data.resize(range.length);
  image.read(range.offset, change->data);
  change->batch = batch_;
  return change;
}

std::optional<Finding> Model::apply(std::span<Operation> batch) {
  USBD_ASSERT(unsettled_.empty());
  ++batch_;
  std::vector<ChangePtr> changes;
  std::optional<Finding> finding;
  bool flushed = false;
  bool failed_to_sync = false;
  for (Operation& op : batch) {
    if (has_landed(op)) changes.push_back(take_change(op));
    flushed |= op.kind == OpKind::kFlush && op.error == 0;
    failed_to_sync |= (op.kind == OpKind::kFlush || op.fua) && op.error != 0;
  }
  for (size_t i = 0; i < batch.size() && !finding; ++i) {
    const Operation& op = batch[i];
    if (op.error != 0) continue;
    if (op.kind == OpKind::kRead) finding = check_read(op, changes);
    if (op.kind == OpKind::kExtents) finding = check_extents(op, changes);
    if (finding) finding->operation = i;
  }
  // A flush covers what had completed before it was sent: the batches before this one.
  if (flushed) commit();
  take_changes(std::move(changes));
  if (failed_to_sync) sync_failed();
  return finding;
}

void Model::sync_failed() {
  lost_.insert(lost_.end(), log_.begin(), log_.end());
  log_.clear();
}

void Model::commit() {
  for (const ChangePtr& change : log_) durable_.copy_from(image_, change->range);
  log_.clear();
}

void Model::take_changes(std::vector<ChangePtr> changes) {
  if (options_.keeps_log) log_.insert(log_.end(), changes.begin(), changes.end());
  std::ranges::sort(changes, {}, [](const ChangePtr& change) { return change->range.offset; });
  for (size_t first = 0; first < changes.size();) {
    uint64_t end = changes[first]->range.end();
    size_t next = first + 1;
    for (; next < changes.size() && changes[next]->range.offset < end; ++next) {
      end = std::max(end, changes[next]->range.end());
    }
    take_cluster(std::span(changes).subspan(first, next - first));
    first = next;
  }
}

void Model::write_part(const Change& change, ByteRange part) {
  if (change.data.empty()) {
    image_.zero(part);
  } else {
    const Bytes data(change.data);
    image_.write(part.offset, data.subspan(part.offset - change.range.offset, part.length));
  }
}

/// Takes changes whose ranges hang together.
void Model::take_cluster(std::span<const ChangePtr> cluster) {
  const Change& only = *cluster.front();
  if (cluster.size() == 1 && only.certain) {
    write_part(only, only.range);
    return;
  }
  for (Segment& segment : overlay(cluster)) {
    if (segment.candidates.size() == 1 && segment.candidates[0]->certain) {
      write_part(*segment.candidates[0], segment.range);
      continue;
    }
    if (segment.candidates.size() > 1) ++overlaps_;
    const bool certain = std::ranges::any_of(
        segment.candidates, [](const ChangePtr& change) { return change->certain; });
    segment.ordered = options_.orders_overlaps &&
                      std::ranges::all_of(segment.candidates,
                                          [](const ChangePtr& change) { return change->certain; });
    if (!certain) segment.candidates.push_back(old_content(image_, segment.range));
    add_unsettled(segment);
  }
}

/// Large segments are kept in parts, so that one read can settle each.
void Model::add_unsettled(const Segment& segment) {
  const uint64_t part_max = options_.payload_max;
  for (uint64_t done = 0; done < segment.range.length; done += part_max) {
    const uint64_t length = std::min(part_max, segment.range.length - done);
    unsettled_.push_back({.range = ByteRange(segment.range.offset + done, length),
                          .candidates = segment.candidates,
                          .ordered = segment.ordered});
  }
}

/// Cuts the ranges of `changes` where one begins or ends. The parts are in order of offset, the
/// candidates of each in the order of `changes`.
std::vector<Model::Segment> Model::overlay(std::span<const ChangePtr> changes) {
  std::vector<uint64_t> cuts;
  for (const ChangePtr& change : changes) {
    cuts.push_back(change->range.offset);
    cuts.push_back(change->range.end());
  }
  std::ranges::sort(cuts);
  cuts.erase(std::ranges::unique(cuts).begin(), cuts.end());
  std::vector<Segment> segments;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    Segment segment{.range = ByteRange(cuts[i], cuts[i + 1] - cuts[i]), .candidates = {}};
    for (const ChangePtr& change : changes) {
      if (change->range.contains(segment.range)) segment.candidates.push_back(change);
    }
    if (!segment.candidates.empty()) segments.push_back(std::move(segment));
  }
  return segments;
}

std::vector<Operation> Model::settling_reads() const {
  std::vector<Operation> reads;
  for (const Segment& segment : unsettled_) {
    Operation* const last = reads.empty() ? nullptr : &reads.back();
    if (last != nullptr && last->offset + last->length == segment.range.offset &&
        last->length + segment.range.length <= options_.payload_max) {
      last->length += segment.range.length;
      continue;
    }
    Operation read;
    read.offset = segment.range.offset;
    read.length = segment.range.length;
    reads.push_back(std::move(read));
  }
  for (Operation& read : reads) read.data.resize(read.length);
  return reads;
}

std::optional<Finding> Model::settle(std::span<const Operation> reads) {
  order_.clear();
  size_t at = 0;
  std::optional<Finding> finding;
  for (const Segment& segment : unsettled_) {
    while (at + 1 < reads.size() && reads[at].offset + reads[at].length <= segment.range.offset) {
      ++at;
    }
    const Bytes got = Bytes(reads[at].data)
                          .subspan(segment.range.offset - reads[at].offset, segment.range.length);
    if (!finding) {
      finding = settle_one(segment, got);
      if (finding) finding->operation = at;
    }
    image_.write(segment.range.offset, got);
    if (after_crash_) durable_.write(segment.range.offset, got);
  }
  if (!finding && has_order_cycle()) {
    finding = {.text =
                   "overlapping changes that were in flight together left parts of each: no order "
                   "of whole changes explains what is read",
               .operation = 0,
               .offset = unsettled_.front().range.offset};
  }
  unsettled_.clear();
  after_crash_ = false;
  return finding;
}

std::optional<Finding> Model::settle_one(const Segment& segment, Bytes got) {
  const uint64_t unit = after_crash_ && options_.block_size >= 512 ? 512 : 1;
  if (const auto wrong = first_unexplained(segment, got, unit)) {
    return Finding{
        .text = describe_candidates(segment, *wrong, got), .operation = 0, .offset = wrong};
  }
  if (!segment.ordered || after_crash_) return std::nullopt;
  const Change* winner = nullptr;
  size_t winners = 0;
  for (const ChangePtr& candidate : segment.candidates) {
    if (!candidate->gives(segment.range.offset, got)) continue;
    winner = candidate.get();
    ++winners;
  }
  if (winners == 0) {
    return Finding{.text =
                       "changes that were in flight together were mixed: every byte is of one of "
                       "them, but the range is of none",
                   .operation = 0,
                   .offset = segment.range.offset};
  }
  if (winners > 1) return std::nullopt;  // equal data: it cannot be told which was last
  for (const ChangePtr& candidate : segment.candidates) {
    if (candidate.get() != winner) order_.emplace_back(candidate.get(), winner);
  }
  return std::nullopt;
}

/// Whether "came before" leads from some change back to itself.
bool Model::has_order_cycle() const {
  std::map<const Change*, std::vector<const Change*>> later;
  std::map<const Change*, size_t> earlier_count;
  for (const auto& [first, second] : order_) {
    later[first].push_back(second);
    ++earlier_count[second];
    earlier_count.try_emplace(first, 0);
  }
  std::vector<const Change*> free;
  for (const auto& [change, count] : earlier_count) {
    if (count == 0) free.push_back(change);
  }
  size_t placed = 0;
  for (; !free.empty(); ++placed) {
    const Change* const change = free.back();
    free.pop_back();
    for (const Change* const next : later[change]) {
      if (--earlier_count[next] == 0) free.push_back(next);
    }
  }
  return placed < earlier_count.size();
}

void Model::crashed() {
  unsettled_.clear();
  // A commit since then may have put something newer on top of what was lost.
  const bool durable_may_be_newer = !lost_.empty();
  lost_.insert(lost_.end(), log_.begin(), log_.end());
  log_.clear();
  for (Segment& segment : overlay(lost_)) {
    // The last change that was surely durable hides those before it, but not those that were in
    // flight with it.
    const auto& all = segment.candidates;
    const auto durable = std::ranges::find_if(all.rbegin(), all.rend(),
                                              [](const ChangePtr& change) { return change->fua; });
    const bool hides_older = durable != all.rend();
    const uint64_t oldest = hides_older ? (*durable)->batch : 0;
    std::erase_if(segment.candidates,
                  [oldest](const ChangePtr& change) { return change->batch < oldest; });
    if (!hides_older || durable_may_be_newer) {
      segment.candidates.push_back(old_content(durable_, segment.range));
    }
    segment.ordered = false;
    add_unsettled(segment);
  }
  lost_.clear();
  after_crash_ = !unsettled_.empty();
}

}  // namespace usbd::testing
