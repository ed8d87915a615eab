// SPDX-License-Identifier: Apache-2.0
//
// Model: what a volume may hold, given the operations that were sent and their answers. For most
// bytes that is one value. Where changes overlapped in flight, or failed, or power was lost, it is
// one of several; such ranges are unsettled until a read that nothing overlaps says which it was.
//
// Invariants: between batches, settle() leaves nothing unsettled; image_ is what reads must give;
// durable_ is what a loss of power leaves at least, but for the changes in lost_ and log_, of which
// each may have landed or not.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "conformance/sparse_image.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

/// Something that a correct volume cannot have answered.
struct Finding {
  std::string text;
  /// Which operation of the batch shows it.
  size_t operation = 0;
  /// Where, if it is about bytes.
  std::optional<uint64_t> offset;
};

class Model {
 public:
  struct Options {
    uint64_t size = 0;
    uint32_t block_size = 1;
    uint32_t payload_max = 1U << 20;
    bool trim_zeroes = true;
    bool orders_overlaps = true;
    bool merges_extents = true;
    /// Whether crashed() or reopened_after_failure() will be called; else nothing is kept for them.
    bool keeps_log = false;
    /// Only these bytes are known; all else is never looked at.
    std::vector<ByteRange> windows;
  };

  explicit Model(Options options) : options_(std::move(options)) {}

  /// Takes what was read before the first operation.
  void load(uint64_t offset, Bytes data);

  /// Takes operations that were in flight together and their answers: checks what they returned,
  /// and changes what the volume may hold. The data of writes is taken out of them.
  /// Range: nothing is unsettled; every range is within the size, every flag was allowed.
  std::optional<Finding> apply(std::span<Operation> batch);

  /// The reads that would settle what is unsettled; none if all is settled.
  [[nodiscard]] std::vector<Operation> settling_reads() const;
  /// Takes their answers. Range: nothing else was in flight.
  std::optional<Finding> settle(std::span<const Operation> reads);

  /// A sync failed, or may have: what it covered will perhaps never be durable, whatever later ones
  /// say, as with Linux, which forgets such pages. apply() notices by itself where an answer says
  /// so.
  void sync_failed();

  /// Power was lost after the last apply(), and the volume has been opened again.
  void crashed();

  /// The volume was closed and has been opened again, and a sync may have failed before: each
  /// change that none has covered since is on the disk or not, as after a crash, and reads now tell
  /// which.
  void reopened_after_failure() { crashed(); }

  [[nodiscard]] size_t changes_logged() const { return log_.size(); }
  /// Parts of changes that overlapped in flight, so far.
  [[nodiscard]] uint64_t overlaps() const { return overlaps_; }

 private:
  /// One write, trim or zeroing.
  struct Change {
    ByteRange range;
    /// Empty: zeros.
    std::vector<std::byte> data;
    uint64_t batch = 0;
    bool fua = false;
    /// Whether it has surely been done; otherwise each byte may also be what it was.
    bool certain = true;

    [[nodiscard]] std::byte at(uint64_t offset) const {
      return data.empty() ? std::byte{0} : data[offset - range.offset];
    }
    [[nodiscard]] bool gives(uint64_t offset, Bytes got) const;
  };
  using ChangePtr = std::shared_ptr<const Change>;
  struct Segment {
    ByteRange range;
    std::vector<ChangePtr> candidates;
    bool ordered = false;
  };

  [[nodiscard]] static std::vector<Segment> overlay(std::span<const ChangePtr> changes);
  [[nodiscard]] static std::string describe_candidates(const Segment& segment, uint64_t offset,
                                                       Bytes got);
  [[nodiscard]] bool has_landed(const Operation& op) const;
  [[nodiscard]] ChangePtr take_change(Operation& op) const;
  [[nodiscard]] ChangePtr old_content(const SparseImage& image, ByteRange range) const;
  [[nodiscard]] ByteRange clip(ByteRange range, size_t window) const;

  std::optional<Finding> check_read(const Operation& op, std::span<const ChangePtr> changes) const;
  std::optional<Finding> check_extents(const Operation& op,
                                       std::span<const ChangePtr> changes) const;
  std::optional<Finding> check_zero(ByteRange range, std::span<const ChangePtr> changes) const;
  [[nodiscard]] std::optional<uint64_t> first_unexplained(const Segment& segment, Bytes got,
                                                          uint64_t unit) const;
  void commit();
  void take_changes(std::vector<ChangePtr> changes);
  void take_cluster(std::span<const ChangePtr> cluster);
  void write_part(const Change& change, ByteRange part);
  void add_unsettled(const Segment& segment);
  std::optional<Finding> settle_one(const Segment& segment, Bytes got);
  [[nodiscard]] bool has_order_cycle() const;

  const Options options_;
  SparseImage image_;
  SparseImage durable_;
  std::vector<ChangePtr> log_;
  /// Changes that a failed sync covered; older than those in log_.
  std::vector<ChangePtr> lost_;
  std::vector<Segment> unsettled_;
  bool after_crash_ = false;
  /// (earlier, later) as seen in what overlapping changes of the last batch left.
  std::vector<std::pair<const Change*, const Change*>> order_;
  uint64_t batch_ = 0;
  uint64_t overlaps_ = 0;
};

}  // namespace usbd::testing
