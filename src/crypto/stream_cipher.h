// SPDX-License-Identifier: Apache-2.0
//
// StreamCipher: AES in the modes CTR, CFB and OFB, which prove nothing by themselves: what they
// encrypt gets an HMAC-SHA256 under a key of its own, checked before anything is decrypted.
//
// The first counter of CTR has the index in its upper 64 bits and zeros below, so that no counter
// of one index is ever one of another. CFB and OFB start from AES(iv key, index), which nobody who
// lacks the key can foresee.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "crypto/aead.h"
#include "crypto/hmac.h"
#include "crypto/openssl.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::crypto {

enum class StreamMode : uint8_t { kCtr, kCfb, kOfb };

class StreamCipher {
 public:
  static constexpr size_t kTagBytes = kSha256Bytes;

  /// Keys that have nothing to do with each other.
  struct Keys {
    Bytes cipher;  ///< 16, 24 or 32 bytes
    Bytes iv;      ///< of the same size
    Bytes mac;
  };

  /// Errors: kInvalid (a key of another size), kNotSupported (the installed OpenSSL lacks it).
  static Result<std::unique_ptr<StreamCipher>> create(StreamMode mode, const Keys& keys);

  /// Encrypts `plain` into `cipher`, of the same size, and makes its tag.
  /// Range:    the two are the same memory or do not overlap; at most limits::kSealedPieceMax.
  ///           Never the same index for two different plaintexts: callers owe it, for ever.
  /// Threads:  any, at the same time.
  void seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
            std::span<std::byte, kTagBytes> tag) const;

  /// Decrypts; false, and all of `plain` zero, unless index, associated data, bytes and tag are
  /// those of one seal().
  /// Range:    as of seal().
  /// Threads:  any, at the same time.
  [[nodiscard]] bool open(uint64_t index, const AssociatedData& aad, Bytes cipher,
                          std::span<const std::byte, kTagBytes> tag, MutableBytes plain) const;

 private:
  using Block = std::array<std::byte, kAesBlockBytes>;

  StreamCipher(StreamMode mode, const EVP_CIPHER* cipher, const EVP_CIPHER* single,
               const Keys& keys);
  [[nodiscard]] Block first_block(uint64_t index) const;
  [[nodiscard]] Sha256Digest code_of(uint64_t index, const AssociatedData& aad, Bytes cipher) const;

  const StreamMode mode_;
  const KeyedContexts contexts_;
  const KeyedContexts iv_contexts_;
  const HmacSha256 mac_;
};

}  // namespace usbd::crypto
