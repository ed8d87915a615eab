// SPDX-License-Identifier: Apache-2.0
//
// HKDF-SHA256: keys made of one key. Those with different salts or purposes tell nothing about each
// other, nor about the key they come from.

#pragma once

#include <cstddef>

#include "crypto/hmac.h"
#include "crypto/secret.h"
#include "usbd/buffer.h"

namespace usbd::crypto {

inline constexpr size_t kHkdfBytesMax = 255 * kSha256Bytes;

/// What expand() makes keys from. Ref: RFC 5869, 2.2; its PRK.
class Hkdf {
 public:
  /// Range: `key` has the entropy; `salt` is not secret and may be empty.
  Hkdf(Bytes key, Bytes salt);

  /// Fills `out` with the key for the purpose `info`. The same purpose gives the same key.
  /// Range:   at most kHkdfBytesMax, asserted.
  /// Threads: any, at the same time.
  /// Ref:     RFC 5869, 2.3.
  void expand(Bytes info, MutableBytes out) const;

 private:
  HmacSha256 pseudo_random_key_;
};

}  // namespace usbd::crypto
