// SPDX-License-Identifier: Apache-2.0
//
// HMAC on top of the digest: EVP's own MAC objects cost several allocations for each message.

#include "crypto/hmac.h"

#include <algorithm>

#include <openssl/crypto.h>

#include "base/assert.h"

namespace usbd::crypto {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  USBD_ASSERT(context_ != nullptr);
  USBD_ASSERT(EVP_DigestInit_ex2(context_.get(), find_sha256(), nullptr) == 1);
}

void Sha256::update(Bytes data) {
  USBD_ASSERT(EVP_DigestUpdate(context_.get(), data.data(), data.size()) == 1);
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest{};
  unsigned length = 0;
  USBD_ASSERT(EVP_DigestFinal_ex(context_.get(), out(digest), &length) == 1);
  USBD_ASSERT(length == digest.size());
  USBD_ASSERT(EVP_DigestInit_ex2(context_.get(), find_sha256(), nullptr) == 1);
  return digest;
}

Sha256Digest sha256(std::initializer_list<Bytes> parts) {
  Sha256 digest;
  for (const Bytes part : parts) digest.update(part);
  return digest.finish();
}

HmacSha256::HmacSha256(Bytes key) {
  constexpr std::byte kInnerPad{0x36};
  constexpr std::byte kOuterPad{0x5c};
  Wiped<kBlockBytes> padded;
  if (key.size() > kBlockBytes) {
    Sha256Digest digest = sha256(key);
    std::ranges::copy(digest, padded.writable().begin());
    wipe(digest);
  } else {
    std::ranges::copy(key, padded.writable().begin());
  }
  for (size_t i = 0; i < kBlockBytes; ++i) {
    inner_.writable()[i] = padded.bytes()[i] ^ kInnerPad;
    outer_.writable()[i] = padded.bytes()[i] ^ kOuterPad;
  }
}

Sha256Digest HmacSha256::of(std::initializer_list<Bytes> parts) const {
  Sha256 digest;
  digest.update(inner_.bytes());
  for (const Bytes part : parts) digest.update(part);
  const Sha256Digest inner = digest.finish();
  digest.update(outer_.bytes());
  digest.update(inner);
  return digest.finish();
}

Sha256Digest hmac_sha256(Bytes key, Bytes data) {
  return HmacSha256(key).of(data);
}

bool equal_secretly(Bytes a, Bytes b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace usbd::crypto
