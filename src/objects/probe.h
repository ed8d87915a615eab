// SPDX-License-Identifier: Apache-2.0
//
// What a store really does, found out by trying it on scratch objects: servers that speak the same
// protocol differ, and some accept a condition and ignore it, which is worse than refusing it.

#pragma once

#include <string>
#include <vector>

#include "base/random.h"
#include "objects/object_store.h"

namespace usbd::objects {

struct ProbeReport {
  /// What was tried, whether it works, and what was seen, each a part of a sentence for people:
  /// "a put whose tag is stale", "was made all the same".
  struct Finding {
    std::string tried;
    bool works = false;
    std::string seen;
  };

  /// A put if absent was refused where there was an object, changed nothing, and made one where
  /// there was none.
  bool put_if_absent = false;
  /// A put if the tag matches was refused for a stale tag, changed nothing, and was made for the
  /// present one.
  bool put_if_matches = false;
  /// A get sees the put, and the overwrite, before it.
  bool sees_own_puts = false;
  bool gets_ranges = false;
  bool gets_tails = false;
  /// Each put changes the tag, and all calls give the same.
  bool tags_change = false;
  bool lists = false;
  bool removes = false;
  std::vector<Finding> findings;

  /// Whether a volume can live there at all, with or without protection against a second writer.
  [[nodiscard]] bool usable() const {
    return sees_own_puts && gets_ranges && gets_tails && tags_change;
  }
  /// A line for each finding.
  [[nodiscard]] std::string text() const;
};

/// Tries `store` on objects "<prefix>probe-<random>-..." and removes them.
/// `limits`: of each call. Range: `prefix` is empty or ends with a slash.
/// Errors:   the store's own, if a call fails in a way that says nothing of what it can do
///           (connection, credentials, space): nothing is known then. What was put is removed then
///           too, if the store lets that happen.
Task<Result<ProbeReport>> probe(ObjectStore& store, std::string prefix, Rng& rng,
                                CallLimits limits);

}  // namespace usbd::objects
