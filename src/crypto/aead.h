// SPDX-License-Identifier: Apache-2.0
//
// Aead: encryption that also proves that nothing was changed: AES-GCM and ChaCha20-Poly1305. What
// is not secret but must be right (who wrote it, where it belongs) goes along as associated data.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "crypto/openssl.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::crypto {

/// Bytes that are authenticated and not encrypted: the two parts, one after the other. Where the
/// first ends is not authenticated; callers give it a fixed size.
struct AssociatedData {
  AssociatedData() = default;
  AssociatedData(Bytes one) : first(one) {}
  AssociatedData(Bytes one, Bytes two) : first(one), second(two) {}

  Bytes first;
  Bytes second;
};

enum class AeadKind : uint8_t { kAesGcm, kChaCha20Poly1305 };

class Aead {
 public:
  static constexpr size_t kNonceBytes = 12;
  static constexpr size_t kTagBytes = 16;
  using Nonce = std::array<std::byte, kNonceBytes>;

  /// Range:  16, 24 or 32 bytes of key for AES, 32 for ChaCha20.
  /// Errors: kInvalid (another size), kNotSupported (the installed OpenSSL lacks it).
  static Result<std::unique_ptr<Aead>> create(AeadKind kind, Bytes key);

  /// Encrypts `plain` into `cipher`, of the same size, and makes its tag.
  /// Range:    the two are the same memory or do not overlap; at most limits::kSealedPieceMax.
  ///           Never the same nonce for two different plaintexts: callers owe it, for ever.
  /// Threads:  any, at the same time.
  void seal(const Nonce& nonce, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
            std::span<std::byte, kTagBytes> tag) const;

  /// Decrypts; false, and all of `plain` zero, unless nonce, associated data, bytes and tag are
  /// those of one seal().
  /// Range:    as of seal().
  /// Threads:  any, at the same time.
  [[nodiscard]] bool open(const Nonce& nonce, const AssociatedData& aad, Bytes cipher,
                          std::span<const std::byte, kTagBytes> tag, MutableBytes plain) const;

 private:
  Aead(const EVP_CIPHER* cipher, Bytes key) : contexts_(cipher, key) {}

  KeyedContexts contexts_;
};

}  // namespace usbd::crypto
