// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 and HMAC-SHA256, at once or piece by piece.

#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>

#include "crypto/openssl.h"
#include "crypto/secret.h"
#include "usbd/buffer.h"

namespace usbd::crypto {

inline constexpr size_t kSha256Bytes = 32;
using Sha256Digest = std::array<std::byte, kSha256Bytes>;

/// Threads: one at a time.
class Sha256 {
 public:
  Sha256();

  void update(Bytes data);
  /// The digest of all updates; begins anew.
  [[nodiscard]] Sha256Digest finish();

 private:
  DigestContext context_;
};

/// The digest of the parts, one after the other. Threads: any.
[[nodiscard]] Sha256Digest sha256(std::initializer_list<Bytes> parts);
[[nodiscard]] inline Sha256Digest sha256(Bytes data) {
  return sha256({data});
}

/// One key for many messages. Ref: RFC 2104.
/// Threads: any, at the same time.
class HmacSha256 {
 public:
  /// Range: a key of any size; 32 bytes are as good as more.
  explicit HmacSha256(Bytes key);

  /// The code of the parts, one after the other. Where one ends is not authenticated: callers with
  /// several parts of free size add their sizes.
  [[nodiscard]] Sha256Digest of(std::initializer_list<Bytes> parts) const;
  [[nodiscard]] Sha256Digest of(Bytes data) const { return of({data}); }

 private:
  static constexpr size_t kBlockBytes = 64;

  Wiped<kBlockBytes> inner_;
  Wiped<kBlockBytes> outer_;
};

[[nodiscard]] Sha256Digest hmac_sha256(Bytes key, Bytes data);

/// Whether they are equal, in a time that does not tell where they differ. Range: sizes may differ.
[[nodiscard]] bool equal_secretly(Bytes a, Bytes b);

}  // namespace usbd::crypto
