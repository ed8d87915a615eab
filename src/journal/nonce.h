// SPDX-License-Identifier: Apache-2.0
//
// The nonces of a session: one for each block of each record, and one for each record's header.

#pragma once

#include <cstdint>

#include "base/endian.h"
#include "journal/sealer.h"

namespace usbd::journal {

/// Stands for a header where other nonces have the number of a block.
inline constexpr uint32_t kHeaderNonce = UINT32_MAX;

[[nodiscard]] inline Sealer::Nonce nonce_of(uint64_t jseq, uint32_t block) {
  struct {
    Le64 jseq;
    Le32 block;
  } const parts{.jseq = jseq, .block = block};
  static_assert(sizeof(parts) == sizeof(Sealer::Nonce));
  Sealer::Nonce nonce;
  std::memcpy(nonce.data(), &parts, sizeof(parts));
  return nonce;
}

}  // namespace usbd::journal
