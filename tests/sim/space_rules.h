// SPDX-License-Identifier: Apache-2.0
//
// How a simulated volume makes checkpoints and cleans up: so often that a short history has many of
// them, and differently each time.

#pragma once

#include "base/random.h"
#include "devices/objstore/volume.h"

namespace usbd::sim {

objstore::SpaceRules draw_space_rules(Rng& rng);

}  // namespace usbd::sim
