// SPDX-License-Identifier: Apache-2.0
//
// Generator: the random operations of a run, in batches that are sent together. Everything is drawn
// from one seed and nothing from the answers, so a seed gives the same operations again.
//
// Ranges crowd together (overlaps, ends, boundaries that implementations have), data is mostly
// unlike any other so that a misplaced byte is seen, and some requests are such that they must be
// refused.

#pragma once

#include <cstdint>
#include <vector>

#include "base/random.h"
#include "usbd/testing/conformance.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

class Generator {
 public:
  /// Range: `windows` are within the size, not empty, multiples of the block size.
  Generator(const SubjectTraits& traits, const ConformanceOptions& options,
            std::vector<ByteRange> windows);

  /// The next operations to be sent together: at least one.
  std::vector<Operation> next_batch();

 private:
  /// Where one batch works.
  struct Place {
    ByteRange window;
    /// Most ranges of the batch begin in here.
    ByteRange focus;
  };

  Place choose_place();
  size_t choose_count();
  Operation make_operation(const Place& place);
  Operation make_refused();
  OpKind choose_kind();
  ByteRange choose_range(const Place& place, OpKind kind);
  uint64_t choose_length(const ByteRange& window, OpKind kind);
  uint64_t choose_offset(const Place& place);
  void choose_flags(Operation& op);
  void fill(Operation& op);

  const SubjectTraits traits_;
  const ConformanceOptions options_;
  const std::vector<ByteRange> windows_;
  SeededRng rng_;
  /// Each valid kind as often as its share.
  std::vector<OpKind> kinds_;
  std::vector<Operation> refused_;
  uint64_t made_ = 0;
};

/// Which bytes of a subject a run uses.
std::vector<ByteRange> choose_windows(const SubjectTraits& traits, uint64_t span_max);

}  // namespace usbd::testing
