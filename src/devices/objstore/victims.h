// SPDX-License-Identifier: Apache-2.0
//
// Which objects garbage collection takes next. Two reasons: the volume takes too much room for what
// is live in it, or there are many small objects. For the first, those objects are best of which
// much is dead, little has to be copied, and whose rest will stay as it is, because it has for
// long.

#pragma once

#include <cstdint>
#include <vector>

#include "base/limits.h"
#include "devices/objstore/object_table.h"

namespace usbd::objstore {

struct CleanRules {
  /// Bytes stored for each live one, above which objects are cleaned; 0: nothing is.
  double target = 1.40;
  /// Live bytes of one round, and the dead bytes that there must be. Units: bytes of the volume;
  /// stored bytes.
  uint64_t round_bytes = limits::kCleanBytes;
  uint64_t waste_min = limits::kCleanWasteMin;
  /// Smaller objects are merged when there are so many; 0: never.
  uint64_t small_bytes = limits::kSmallObjectBytes;
  uint32_t small_objects = limits::kSmallObjects;
};

struct Victim {
  uint32_t slot = 0;
  ObjectId id = {};
  uint32_t live = 0;
};

/// Numbers of objects that garbage collection makes tell when: from this one on they are made when
/// `seq` was the last log object. Order: they grow. Range: `seq` < 2^48.
constexpr uint64_t moved_id_after(uint64_t seq) {
  return seq << 16U;
}
constexpr uint64_t seq_before_moved(uint64_t id) {
  return id >> 16U;
}

/// Is shown all objects, one after the other, then chooses.
class VictimChooser {
 public:
  /// `last_seq`: the newest log object: ages count from there.
  VictimChooser(const CleanRules& rules, uint64_t last_seq) : rules_(rules), last_seq_(last_seq) {}

  void show(uint32_t slot, const ObjectFacts& facts);
  /// What the next round takes; none: nothing is to be done. Called once, last.
  [[nodiscard]] std::vector<Victim> choose();

  /// Whether so much is dead that something is to be done.
  [[nodiscard]] static bool is_wasteful(const CleanRules& rules, uint64_t stored, uint64_t live);

 private:
  struct Candidate {
    Victim victim;
    double score = 0;
    uint64_t stored_bytes = 0;
    uint64_t live_bytes = 0;
  };

  [[nodiscard]] double score_of(const ObjectFacts& facts) const;
  [[nodiscard]] std::vector<Victim> choose_small();
  [[nodiscard]] std::vector<Victim> choose_wasteful();

  const CleanRules rules_;
  const uint64_t last_seq_;
  uint64_t stored_ = 0;
  uint64_t live_ = 0;
  /// The best, as a heap with the worst of them first.
  std::vector<Candidate> best_;
  std::vector<Victim> small_;
};

}  // namespace usbd::objstore
