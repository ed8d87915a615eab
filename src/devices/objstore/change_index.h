// SPDX-License-Identifier: Apache-2.0
//
// The changes that are not published yet, in batches: a batch becomes one data object. Within a
// batch only the last change of each block is kept; of several batches the youngest counts.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "devices/objstore/block_map.h"
#include "devices/objstore/data_object_reader.h"
#include "journal/record.h"
#include "usbd/loop.h"

namespace usbd::objstore {

/// One run of blocks as a batch leaves it.
struct Change {
  BlockRange blocks;
  uint64_t number = 0;
  ExtentKind kind = ExtentKind::kData;
  /// kData: where the first block's bytes are.
  journal::Place place;
};

/// Threads: one at a time.
class Batch {
 public:
  enum class State : uint8_t { kOpen, kClosed, kSealing, kStored };

  Batch(uint64_t first_number, Nanos now) : first_number_(first_number), begun_(now) {}

  /// Takes a change. Range: numbers rise by one from first_number() on.
  void add(Change change);
  /// The changes of `range`, cut to it, in order. What is not among them this batch does not touch.
  [[nodiscard]] std::vector<Change> find(BlockRange range) const;
  /// All of it, in order of blocks.
  [[nodiscard]] std::vector<Change> all() const;

  [[nodiscard]] uint64_t first_number() const { return first_number_; }
  [[nodiscard]] uint64_t last_number() const { return last_number_; }
  [[nodiscard]] Nanos begun() const { return begun_; }
  /// Blocks with data, after overwrites inside it.
  [[nodiscard]] uint64_t data_blocks() const { return data_blocks_; }
  /// What its changes take in the journal. Units: blocks.
  [[nodiscard]] uint64_t journal_blocks() const { return journal_blocks_; }
  [[nodiscard]] size_t extents() const { return changes_.size(); }
  [[nodiscard]] bool empty() const { return changes_.empty(); }

  // What becomes of it, kept by the volume:
  State state = State::kOpen;
  /// Of its object, once it is being sealed.
  uint64_t seq = 0;
  /// Of its object, once it is stored.
  uint64_t object_bytes = 0;
  std::shared_ptr<const Directory> directory;

 private:
  /// By their first block.
  using Changes = std::map<uint64_t, Change>;

  /// Takes out what is of `range`; returns what comes after it.
  Changes::iterator cut(BlockRange range);

  const uint64_t first_number_;
  uint64_t last_number_ = 0;
  const Nanos begun_;
  uint64_t data_blocks_ = 0;
  uint64_t journal_blocks_ = 0;
  Changes changes_;
};

/// `change` without its first `blocks` blocks.
[[nodiscard]] Change without_front(Change change, uint64_t blocks);

}  // namespace usbd::objstore
