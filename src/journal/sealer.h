// SPDX-License-Identifier: Apache-2.0
//
// How a journal encrypts its payload: with a key of each session's own, made from a salt that no
// other session has. Nonces are record number and block, so no pair of key and nonce is used twice.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "journal/format.h"
#include "usbd/buffer.h"

namespace usbd::journal {

/// Threads: any, at the same time.
class Sealer {
 public:
  using Nonce = std::array<std::byte, 12>;

  virtual ~Sealer() = default;

  /// Encrypts `plain` into `out` (as long, may be the same memory) and authenticates it and `aad`.
  /// Range: no nonce is given twice.
  virtual Tag seal(const Nonce& nonce, Bytes aad, Bytes plain, MutableBytes out) const = 0;

  /// The reverse; false: not what was sealed, and `out` holds nothing of it.
  [[nodiscard]] virtual bool open(const Nonce& nonce, Bytes aad, Bytes sealed, const Tag& tag,
                                  MutableBytes out) const = 0;
};

/// Makes the sealer of the session that has this salt. Empty: the payload is not encrypted.
using SealerSource = std::function<std::shared_ptr<const Sealer>(const Salt& salt)>;

}  // namespace usbd::journal
