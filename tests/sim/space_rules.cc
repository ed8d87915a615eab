// SPDX-License-Identifier: Apache-2.0
//
// In one history of ten a volume keeps to what it does by default: then nothing of this happens.

#include "sim/space_rules.h"

namespace usbd::sim {

objstore::SpaceRules draw_space_rules(Rng& rng) {
  objstore::SpaceRules rules;
  if (rng.one_in(10)) return rules;
  constexpr uint64_t kBlock = objstore::kBlockBytes;
  rules.replay_objects = rng.between(1, 8);
  rules.checkpoint_data_bytes = rng.between(1, 64) * kBlock;
  rules.clean.target = rng.one_in(6) ? 0 : 1.05 + 0.1 * static_cast<double>(rng.below(5));
  rules.clean.round_bytes = rng.between(2, 48) * kBlock;
  rules.clean.waste_min = rng.below(8) * kBlock;
  rules.clean.small_bytes = rng.between(1, 16) * kBlock;
  rules.clean.small_objects = static_cast<uint32_t>(rng.between(2, 12));
  const uint64_t longest = rng.one_in(3) ? 2'000'000'000 : 50'000'000;
  rules.delete_after = Nanos(static_cast<int64_t>(rng.below(longest)));
  return rules;
}

}  // namespace usbd::sim
