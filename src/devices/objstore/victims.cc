// SPDX-License-Identifier: Apache-2.0
//
// Memory is bounded: only the best are kept, however many objects are shown.

#include "devices/objstore/victims.h"

#include <algorithm>
#include <tuple>

#include "devices/objstore/data_object.h"

namespace usbd::objstore {

bool VictimChooser::is_wasteful(const CleanRules& rules, uint64_t stored, uint64_t live) {
  if (rules.target <= 0 || stored <= live) return false;
  return static_cast<double>(stored) > rules.target * static_cast<double>(live) &&
         stored - live >= rules.waste_min;
}

/// What is gained, for how long it may be hoped to stay so, by what is read and written for it.
double VictimChooser::score_of(const ObjectFacts& facts) const {
  const double used =
      static_cast<double>(facts.live_bytes()) / static_cast<double>(facts.stored_bytes);
  const bool moved = facts.id.kind == ObjectKind::kGc;
  const uint64_t seq = moved ? seq_before_moved(facts.id.seq) : facts.id.seq;
  const double age = static_cast<double>(last_seq_ - std::min(seq, last_seq_) + 1);
  return (1 - used) * age / (1 + used);
}

void VictimChooser::show(uint32_t slot, const ObjectFacts& facts) {
  if (facts.state != ObjectState::kInUse || facts.live == 0) return;
  stored_ += facts.stored_bytes;
  live_ += facts.live_bytes();
  const Victim victim{.slot = slot, .id = facts.id, .live = facts.live};
  if (facts.object_bytes < rules_.small_bytes && small_.size() < limits::kVictimsMax) {
    small_.push_back(victim);
  }
  if (facts.live == facts.blocks) return;  // nothing is gained
  const auto better = [](const Candidate& a, const Candidate& b) { return a.score > b.score; };
  best_.push_back({.victim = victim,
                   .score = score_of(facts),
                   .stored_bytes = facts.stored_bytes,
                   .live_bytes = facts.live_bytes()});
  std::ranges::push_heap(best_, better);
  if (best_.size() <= limits::kVictimsMax) return;
  std::ranges::pop_heap(best_, better);
  best_.pop_back();
}

std::vector<Victim> VictimChooser::choose() {
  std::vector<Victim> chosen = choose_small();
  return chosen.empty() ? choose_wasteful() : chosen;
}

std::vector<Victim> VictimChooser::choose_small() {
  if (rules_.target <= 0 || rules_.small_objects == 0) return {};
  if (small_.size() < std::max<size_t>(rules_.small_objects, 2)) return {};
  // The oldest log objects first, then what was merged before.
  std::ranges::sort(small_, [](const Victim& a, const Victim& b) {
    return std::tuple(a.id.kind, a.id.seq, a.id.epoch) <
           std::tuple(b.id.kind, b.id.seq, b.id.epoch);
  });
  uint64_t bytes = 0;
  size_t count = 0;
  for (; count < small_.size(); ++count) {
    bytes += uint64_t{small_[count].live} * kBlockBytes;
    if (count >= 2 && bytes > rules_.round_bytes) break;
  }
  small_.resize(count);
  return small_;
}

std::vector<Victim> VictimChooser::choose_wasteful() {
  if (!is_wasteful(rules_, stored_, live_)) return {};
  std::ranges::sort(best_, std::ranges::greater(), &Candidate::score);
  std::vector<Victim> chosen;
  uint64_t bytes = 0;
  uint64_t stored = stored_;
  for (const Candidate& candidate : best_) {
    if (static_cast<double>(stored) <= rules_.target * static_cast<double>(live_)) break;
    bytes += uint64_t{candidate.victim.live} * kBlockBytes;
    if (!chosen.empty() && bytes > rules_.round_bytes) break;
    chosen.push_back(candidate.victim);
    stored -= candidate.stored_bytes - candidate.live_bytes;
  }
  return chosen;
}

}  // namespace usbd::objstore
