// SPDX-License-Identifier: Apache-2.0
//
// A sealer for simulations: fast, deterministic, and bound to salt, nonce and associated data, so
// that whatever is opened under the wrong ones is refused. It hides nothing from anybody.

#pragma once

#include <memory>

#include "journal/sealer.h"

namespace usbd::sim {

/// A journal::SealerSource.
std::shared_ptr<const journal::Sealer> toy_sealer(const journal::Salt& salt);

}  // namespace usbd::sim
