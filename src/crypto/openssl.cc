// SPDX-License-Identifier: Apache-2.0
//
// An operation of OpenSSL that fails with right arguments has run out of memory; there is no
// going on without encryption, so that ends the process as a bug does.

#include "crypto/openssl.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::crypto {
namespace {

constexpr std::array<size_t, 3> kAesKeyBytes = {16, 24, 32};
constexpr std::array<const char*, 5> kAesModes = {"GCM", "CTR", "CFB", "OFB", "ECB"};

struct Ciphers {
  std::array<std::array<const EVP_CIPHER*, kAesModes.size()>, kAesKeyBytes.size()> aes{};
  const EVP_CIPHER* chacha = nullptr;
};

/// Kept for the life of the process, as OpenSSL would keep them itself.
Ciphers fetch_all() {
  Ciphers found;
  for (size_t size = 0; size < kAesKeyBytes.size(); ++size) {
    for (size_t mode = 0; mode < kAesModes.size(); ++mode) {
      const std::string name =
          "AES-" + std::to_string(kAesKeyBytes[size] * 8) + "-" + kAesModes[mode];
      found.aes[size][mode] = EVP_CIPHER_fetch(nullptr, name.c_str(), nullptr);
    }
  }
  found.chacha = EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr);
  return found;
}

}  // namespace

const EVP_CIPHER* find_cipher(Algorithm algorithm, size_t key_bytes) {
  static const Ciphers kFound = fetch_all();
  if (algorithm == Algorithm::kChaCha20Poly1305) {
    return key_bytes == kKeyBytesMax ? kFound.chacha : nullptr;
  }
  const auto* const size = std::ranges::find(kAesKeyBytes, key_bytes);
  if (size == kAesKeyBytes.end()) return nullptr;
  return kFound
      .aes[static_cast<size_t>(size - kAesKeyBytes.begin())][static_cast<size_t>(algorithm)];
}

const EVP_MD* find_sha256() {
  static const EVP_MD* const kFound = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  USBD_ASSERT(kFound != nullptr);  // every provider has it
  return kFound;
}

KeyedContexts::KeyedContexts(const EVP_CIPHER* cipher, Bytes key) : cipher_(cipher) {
  USBD_ASSERT(cipher != nullptr);
  USBD_ASSERT(static_cast<int>(key.size()) == EVP_CIPHER_get_key_length(cipher));
  std::ranges::copy(key, key_.writable().begin());
}

CipherContext KeyedContexts::take() const {
  {
    const MutexLock lock(mutex_);
    if (!free_.empty()) {
      CipherContext context = std::move(free_.back());
      free_.pop_back();
      return context;
    }
  }
  CipherContext context(EVP_CIPHER_CTX_new());
  USBD_ASSERT(context != nullptr);
  USBD_ASSERT(EVP_CipherInit_ex2(context.get(), cipher_, in(key_.bytes()), nullptr, 1, nullptr) ==
              1);
  USBD_ASSERT(EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1);
  return context;
}

void KeyedContexts::give_back(CipherContext context) const {
  const MutexLock lock(mutex_);
  if (free_.size() < limits::kCipherContextsKept) free_.push_back(std::move(context));
}

KeyedContexts::Lease KeyedContexts::begin(Bytes iv, Way way) const {
  USBD_ASSERT(static_cast<int>(iv.size()) == EVP_CIPHER_get_iv_length(cipher_));
  CipherContext context = take();
  const int encrypt = static_cast<int>(way);
  USBD_ASSERT(EVP_CipherInit_ex2(context.get(), nullptr, nullptr, iv.empty() ? nullptr : in(iv),
                                 encrypt, nullptr) == 1);
  return {*this, std::move(context)};
}

void KeyedContexts::Lease::update(Bytes from, MutableBytes to) const {
  USBD_ASSERT(from.size() == to.size());
  USBD_ASSERT(from.size() <= limits::kSealedPieceMax);
  if (from.empty()) return;
  int length = 0;
  USBD_ASSERT(EVP_CipherUpdate(context_.get(), out(to), &length, in(from),
                               static_cast<int>(from.size())) == 1);
  USBD_ASSERT(static_cast<size_t>(length) == from.size());
}

}  // namespace usbd::crypto
