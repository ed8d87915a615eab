// SPDX-License-Identifier: Apache-2.0
//
// A map of runs that never overlap: what a new change covers is cut out first.

#include "devices/objstore/change_index.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/assert.h"

namespace usbd::objstore {

Change without_front(Change change, uint64_t blocks) {
  change.blocks = BlockRange(change.blocks.first + blocks, change.blocks.count - blocks);
  if (change.kind == ExtentKind::kData) change.place.block += static_cast<uint32_t>(blocks);
  return change;
}

Batch::Changes::iterator Batch::cut(BlockRange range) {
  auto at = changes_.upper_bound(range.first);
  if (at != changes_.begin() && std::prev(at)->second.blocks.end() > range.first) --at;
  while (at != changes_.end() && at->second.blocks.first < range.end()) {
    Change old = std::move(at->second);
    at = changes_.erase(at);
    const bool data = old.kind == ExtentKind::kData;
    if (data) data_blocks_ -= old.blocks.count;
    if (old.blocks.first < range.first) {
      Change front = old;
      front.blocks.count = range.first - old.blocks.first;
      if (data) data_blocks_ += front.blocks.count;
      changes_.emplace_hint(at, front.blocks.first, std::move(front));
    }
    if (old.blocks.end() > range.end()) {
      const uint64_t covered = range.end() - old.blocks.first;
      Change back = without_front(std::move(old), covered);
      if (data) data_blocks_ += back.blocks.count;
      at = changes_.emplace_hint(at, back.blocks.first, std::move(back));
    }
  }
  return at;
}

void Batch::add(Change change) {
  USBD_ASSERT(change.number >= first_number_);
  USBD_ASSERT(change.number > last_number_);
  last_number_ = change.number;
  const auto after = cut(change.blocks);
  if (change.kind == ExtentKind::kData) {
    data_blocks_ += change.blocks.count;
    journal_blocks_ += change.blocks.count;
  }
  changes_.emplace_hint(after, change.blocks.first, std::move(change));
}

std::vector<Change> Batch::find(BlockRange range) const {
  std::vector<Change> found;
  auto at = changes_.upper_bound(range.first);
  if (at != changes_.begin()) --at;
  for (; at != changes_.end() && at->second.blocks.first < range.end(); ++at) {
    Change change = at->second;
    if (change.blocks.end() <= range.first) continue;
    if (change.blocks.first < range.first) {
      change = without_front(change, range.first - change.blocks.first);
    }
    change.blocks.count = std::min(change.blocks.end(), range.end()) - change.blocks.first;
    found.push_back(std::move(change));
  }
  return found;
}

std::vector<Change> Batch::all() const {
  std::vector<Change> found;
  found.reserve(changes_.size());
  for (const auto& [first, change] : changes_) found.push_back(change);
  return found;
}

}  // namespace usbd::objstore
