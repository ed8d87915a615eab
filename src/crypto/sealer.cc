// SPDX-License-Identifier: Apache-2.0
//
// The purpose that HKDF makes a key for ("info") is: label, a zero byte, the mode's number, the
// number of the part (0 cipher, 1 code, 2 first block), identity. The nonce of the AEADs is four
// zero bytes and the index, highest byte first.

#include "crypto/sealer.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "crypto/hkdf.h"
#include "crypto/stream_cipher.h"

namespace usbd::crypto {
namespace {

struct ModeFacts {
  std::string_view name;
  size_t tag_bytes;
};
/// By number.
constexpr std::array<ModeFacts, kCipherModes> kModes = {{
    {"identity", 4},
    {"aes-gcm", Aead::kTagBytes},
    {"chacha20-poly1305", Aead::kTagBytes},
    {"aes-ctr", StreamCipher::kTagBytes},
    {"aes-cfb", StreamCipher::kTagBytes},
    {"aes-ofb", StreamCipher::kTagBytes},
}};

const ModeFacts& facts(CipherMode mode) {
  return kModes.at(static_cast<size_t>(mode));
}

void check_sizes(const Sealer& sealer, size_t from, size_t to, size_t tag) {
  USBD_ASSERT(from == to);
  USBD_ASSERT(tag == sealer.tag_size());
}

class AeadSealer final : public Sealer {
 public:
  AeadSealer(CipherMode mode, std::unique_ptr<Aead> aead) : mode_(mode), aead_(std::move(aead)) {}

  CipherMode mode() const override { return mode_; }

  void seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
            MutableBytes tag) const override {
    check_sizes(*this, plain.size(), cipher.size(), tag.size());
    aead_->seal(nonce_of(index), aad, plain, cipher, tag.first<Aead::kTagBytes>());
  }

  bool open(uint64_t index, const AssociatedData& aad, Bytes cipher, Bytes tag,
            MutableBytes plain) const override {
    check_sizes(*this, cipher.size(), plain.size(), tag.size());
    return aead_->open(nonce_of(index), aad, cipher, tag.first<Aead::kTagBytes>(), plain);
  }

 private:
  static Aead::Nonce nonce_of(uint64_t index) {
    Aead::Nonce nonce{};
    const Be64 stored = index;
    std::memcpy(nonce.data() + nonce.size() - sizeof(stored), &stored, sizeof(stored));
    return nonce;
  }

  const CipherMode mode_;
  const std::unique_ptr<Aead> aead_;
};

class StreamSealer final : public Sealer {
 public:
  StreamSealer(CipherMode mode, std::unique_ptr<StreamCipher> stream)
      : mode_(mode), stream_(std::move(stream)) {}

  CipherMode mode() const override { return mode_; }

  void seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
            MutableBytes tag) const override {
    check_sizes(*this, plain.size(), cipher.size(), tag.size());
    stream_->seal(index, aad, plain, cipher, tag.first<StreamCipher::kTagBytes>());
  }

  bool open(uint64_t index, const AssociatedData& aad, Bytes cipher, Bytes tag,
            MutableBytes plain) const override {
    check_sizes(*this, cipher.size(), plain.size(), tag.size());
    return stream_->open(index, aad, cipher, tag.first<StreamCipher::kTagBytes>(), plain);
  }

 private:
  const CipherMode mode_;
  const std::unique_ptr<StreamCipher> stream_;
};

/// The tag is a checksum that also knows what the data belongs to.
class IdentitySealer final : public Sealer {
 public:
  explicit IdentitySealer(const SealScope& scope) {
    const Bytes label = std::as_bytes(std::span(scope.label));
    scope_ = crc32c(scope.identity, crc32c(scope.salt, crc32c(label)));
  }

  CipherMode mode() const override { return CipherMode::kIdentity; }

  void seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
            MutableBytes tag) const override {
    check_sizes(*this, plain.size(), cipher.size(), tag.size());
    const Le32 code = code_of(index, aad, plain);
    move(plain, cipher);
    std::memcpy(tag.data(), &code, sizeof(code));
  }

  bool open(uint64_t index, const AssociatedData& aad, Bytes cipher, Bytes tag,
            MutableBytes plain) const override {
    check_sizes(*this, cipher.size(), plain.size(), tag.size());
    if (wire_read<Le32>(tag) != code_of(index, aad, cipher)) {
      std::ranges::fill(plain, std::byte{0});
      return false;
    }
    move(cipher, plain);
    return true;
  }

 private:
  static void move(Bytes from, MutableBytes to) {
    if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
  }

  uint32_t code_of(uint64_t index, const AssociatedData& aad, Bytes data) const {
    const Be64 stored = index;
    const uint32_t known =
        crc32c(aad.second, crc32c(aad.first, crc32c(wire_bytes(stored), scope_)));
    return crc32c(data, known);
  }

  uint32_t scope_;
};

enum class KeyPart : uint8_t { kCipher = 0, kMac = 1, kFirstBlock = 2 };

/// The purposes of one scope.
class Purposes {
 public:
  Purposes(CipherMode mode, const SealScope& scope) {
    const Bytes label = std::as_bytes(std::span(scope.label));
    info_.assign(label.begin(), label.end());
    info_.push_back(std::byte{0});
    info_.push_back(static_cast<std::byte>(mode));
    part_ = info_.size();
    info_.push_back(std::byte{0});
    info_.insert(info_.end(), scope.identity.begin(), scope.identity.end());
  }

  Bytes of(KeyPart part) {
    info_[part_] = static_cast<std::byte>(part);
    return info_;
  }

 private:
  std::vector<std::byte> info_;
  size_t part_ = 0;
};

Result<std::unique_ptr<const Sealer>> make_aead_sealer(CipherMode mode, const Hkdf& hkdf,
                                                       Purposes purposes, size_t key_bytes) {
  const bool aes = mode == CipherMode::kAesGcm;
  Wiped<kKeyBytesMax> key;
  const MutableBytes used = key.writable().first(aes ? key_bytes : kKeyBytesMax);
  hkdf.expand(purposes.of(KeyPart::kCipher), used);
  USBD_TRY(std::unique_ptr<Aead> aead,
           Aead::create(aes ? AeadKind::kAesGcm : AeadKind::kChaCha20Poly1305, used));
  return std::make_unique<const AeadSealer>(mode, std::move(aead));
}

StreamMode stream_mode(CipherMode mode) {
  if (mode == CipherMode::kAesCtr) return StreamMode::kCtr;
  return mode == CipherMode::kAesCfb ? StreamMode::kCfb : StreamMode::kOfb;
}

Result<std::unique_ptr<const Sealer>> make_stream_sealer(CipherMode mode, const Hkdf& hkdf,
                                                         Purposes purposes, size_t key_bytes) {
  Wiped<kKeyBytesMax> cipher;
  Wiped<kKeyBytesMax> first_block;
  Wiped<kSha256Bytes> mac;
  hkdf.expand(purposes.of(KeyPart::kCipher), cipher.writable().first(key_bytes));
  hkdf.expand(purposes.of(KeyPart::kFirstBlock), first_block.writable().first(key_bytes));
  hkdf.expand(purposes.of(KeyPart::kMac), mac.writable());
  const StreamCipher::Keys keys{.cipher = cipher.bytes().first(key_bytes),
                                .iv = first_block.bytes().first(key_bytes),
                                .mac = mac.bytes()};
  USBD_TRY(std::unique_ptr<StreamCipher> stream, StreamCipher::create(stream_mode(mode), keys));
  return std::make_unique<const StreamSealer>(mode, std::move(stream));
}

}  // namespace

Result<CipherMode> parse_cipher(std::string_view text) {
  if (text == "aes-rec") return CipherMode::kAesGcm;  // its name in the original
  const auto* const found = std::ranges::find(kModes, text, &ModeFacts::name);
  if (found != kModes.end()) return static_cast<CipherMode>(found - kModes.begin());
  return Error(Errc::kInvalid, fmt::format("\"{}\" is no cipher; allowed are aes-gcm, "
                                           "chacha20-poly1305, aes-ctr, aes-cfb, aes-ofb, identity",
                                           text));
}

std::string_view to_text(CipherMode mode) {
  return facts(mode).name;
}

Result<CipherMode> cipher_of_number(uint8_t number) {
  if (number < kCipherModes) return static_cast<CipherMode>(number);
  return Error(Errc::kInvalid, fmt::format("cipher {} is not known to this version", number));
}

size_t tag_bytes(CipherMode mode) {
  return facts(mode).tag_bytes;
}

Result<std::unique_ptr<const Sealer>> make_sealer(CipherMode mode, Bytes volume_key,
                                                  const SealScope& scope) {
  if (mode == CipherMode::kIdentity) return std::make_unique<const IdentitySealer>(scope);
  const size_t size = volume_key.size();
  if (size != 16 && size != 24 && size != 32) {
    return Error(Errc::kInvalid, fmt::format("a key has 16, 24 or 32 bytes, not {}", size));
  }
  const Hkdf hkdf(volume_key, scope.salt);
  const bool aead = mode == CipherMode::kAesGcm || mode == CipherMode::kChaCha20Poly1305;
  return aead ? make_aead_sealer(mode, hkdf, Purposes(mode, scope), size)
              : make_stream_sealer(mode, hkdf, Purposes(mode, scope), size);
}

KeyCheck key_check(Bytes volume_key, Bytes salt) {
  constexpr std::string_view kLabel = "usbd-key-check-v1";
  KeyCheck check{};
  Hkdf(volume_key, salt).expand(std::as_bytes(std::span(kLabel)), check);
  return check;
}

}  // namespace usbd::crypto
