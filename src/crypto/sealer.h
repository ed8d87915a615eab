// SPDX-License-Identifier: Apache-2.0
//
// Sealer: one way to protect pieces of data over all the ways that users may choose. Each Sealer
// has keys of its own, made of the volume's key by HKDF, for one object or one session.
//
// What callers owe: no salt is ever used for two objects or sessions (draw it anew, 16 bytes or
// more, each time), and under one Sealer no index is ever sealed twice with different bytes. Then
// no key and nonce ever protect two plaintexts.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "crypto/aead.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::crypto {

/// Stored in formats: numbers are never given anew.
enum class CipherMode : uint8_t {
  kIdentity = 0,  ///< Not encrypted; a checksum finds damage, but not somebody's intent.
  kAesGcm = 1,
  kChaCha20Poly1305 = 2,
  kAesCtr = 3,
  kAesCfb = 4,
  kAesOfb = 5,
};
inline constexpr size_t kCipherModes = 6;
inline constexpr size_t kSealTagBytesMax = 32;

/// `aes-gcm` (or `aes-rec`), `chacha20-poly1305`, `aes-ctr`, `aes-cfb`, `aes-ofb`, `identity`.
/// Errors: kInvalid, saying so.
Result<CipherMode> parse_cipher(std::string_view text);
std::string_view to_text(CipherMode mode);
/// The mode of this number in a format. Errors: kInvalid: none that this version knows.
Result<CipherMode> cipher_of_number(uint8_t number);
/// What a tag of this mode takes: 4, 16 or 32 bytes.
size_t tag_bytes(CipherMode mode);

class Sealer {
 public:
  virtual ~Sealer() = default;

  [[nodiscard]] virtual CipherMode mode() const = 0;
  [[nodiscard]] size_t tag_size() const { return tag_bytes(mode()); }

  /// Encrypts `plain` into `cipher`, of the same size, and makes its tag, of tag_size().
  /// Range:    plain and cipher are the same memory or do not overlap; at most
  ///           limits::kSealedPieceMax; sizes asserted.
  /// Threads:  any, at the same time.
  virtual void seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
                    MutableBytes tag) const = 0;

  /// Decrypts; false, and all of `plain` zero, unless index, associated data, bytes and tag are
  /// those of one seal() under the same keys.
  /// Range:    as of seal(), tag.size() too.
  /// Threads:  any, at the same time.
  [[nodiscard]] virtual bool open(uint64_t index, const AssociatedData& aad, Bytes cipher,
                                  Bytes tag, MutableBytes plain) const = 0;
};

/// What a Sealer's keys are for.
struct SealScope {
  /// Random, stored beside the data, drawn for this object or session alone.
  Bytes salt;
  /// The use, such as "usbd-obj-v1"; holds no zero byte.
  std::string_view label;
  /// Which object or session of that use it is.
  Bytes identity;
};

/// Range:  `volume_key` of 16, 24 or 32 bytes for every mode but kIdentity, which ignores it. AES
///         uses keys of the same size.
/// Errors: kInvalid (a key of another size), kNotSupported (the installed OpenSSL lacks the mode).
Result<std::unique_ptr<const Sealer>> make_sealer(CipherMode mode, Bytes volume_key,
                                                  const SealScope& scope);

using KeyCheck = std::array<std::byte, 16>;
/// A value to store beside `salt`, by which another key is recognised and none can be found.
KeyCheck key_check(Bytes volume_key, Bytes salt);

}  // namespace usbd::crypto
