// SPDX-License-Identifier: Apache-2.0
//
// How a volume's journal is encrypted, whatever the cipher of its objects: AES-256-GCM, each
// session of the journal under a key of its own, which HKDF-SHA256 makes of the volume's key and
// the session's salt for the purpose "usbd-jrn-v1".

#pragma once

#include "journal/sealer.h"
#include "usbd/buffer.h"

namespace usbd::objstore {

/// Range:    `key` is not empty.
/// Lifetime: `key` outlives what is returned.
journal::SealerSource journal_sealers(Bytes key);

}  // namespace usbd::objstore
