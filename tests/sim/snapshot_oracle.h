// SPDX-License-Identifier: Apache-2.0
//
// What a history knows of the snapshots of its volume: those that it took and those of which it
// never heard whether they were taken. A snapshot is there wholly or not at all; once it was
// returned it is there, with every block as it was, until its deletion is asked for.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/snapshots.h"
#include "sim/image_model.h"
#include "sim/sim_store.h"

namespace usbd::sim {

/// Functions that return text: what is wrong; empty: nothing.
class SnapshotOracle {
 public:
  /// One is about to be taken: its name.
  std::string asked();
  /// It is taken; `earliest`: the last change that was numbered before it was asked for.
  std::string taken(const objstore::SnapshotRef& snapshot, uint64_t earliest);
  /// Its deletion is asked for; it is deleted.
  void leaves(uint64_t number) { leaving_.insert(number); }
  void left(uint64_t number);
  /// What a volume lists that was just opened.
  std::string listed(const std::vector<objstore::SnapshotRef>& all);

  /// Whether nobody has asked for its deletion.
  [[nodiscard]] bool is_there(uint64_t number) const {
    return all_.contains(number) && !leaving_.contains(number);
  }
  /// Those that are there, or are about to leave.
  [[nodiscard]] const std::map<uint64_t, objstore::SnapshotRef>& all() const { return all_; }

 private:
  std::map<uint64_t, objstore::SnapshotRef> all_;
  std::set<uint64_t> leaving_;
  /// Names of which nothing is known.
  std::set<std::string> asked_;
  uint64_t names_ = 0;
};

/// Reads every block of a snapshot and compares it with the model, through a store of its own.
/// Waits while the store is away. Lifetime: all until the task has finished.
Task<std::string> compare_snapshot(SimStore& store, std::string volume, Bytes key,
                                   objstore::SnapshotRef snapshot, const ImageModel& model);

}  // namespace usbd::sim
