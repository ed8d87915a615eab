// SPDX-License-Identifier: Apache-2.0
//
// Both algorithms are used alike through EVP: nonce, associated data, data, then the tag.

#include "crypto/aead.h"

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::crypto {
namespace {

using Way = KeyedContexts::Way;

void add(const KeyedContexts::Lease& context, const AssociatedData& aad) {
  for (const Bytes part : {aad.first, aad.second}) {
    if (part.empty()) continue;
    USBD_ASSERT(part.size() <= limits::kSealedPieceMax);
    int length = 0;
    USBD_ASSERT(EVP_CipherUpdate(context.get(), nullptr, &length, in(part),
                                 static_cast<int>(part.size())) == 1);
  }
}

/// Whether the tag was right, when decrypting.
bool finish(const KeyedContexts::Lease& context) {
  unsigned char none[kAesBlockBytes];  // nothing is left over to be put here
  int length = 0;
  return EVP_CipherFinal_ex(context.get(), none, &length) == 1;
}

}  // namespace

Result<std::unique_ptr<Aead>> Aead::create(AeadKind kind, Bytes key) {
  const bool aes = kind == AeadKind::kAesGcm;
  if (key.size() != 32 && !(aes && (key.size() == 16 || key.size() == 24))) {
    return Error(Errc::kInvalid,
                 aes ? "a key of AES has 16, 24 or 32 bytes" : "a key of ChaCha20 has 32 bytes");
  }
  const EVP_CIPHER* const cipher =
      find_cipher(aes ? Algorithm::kAesGcm : Algorithm::kChaCha20Poly1305, key.size());
  if (cipher == nullptr) {
    return Error(Errc::kNotSupported, aes ? "the installed OpenSSL has no AES-GCM"
                                          : "the installed OpenSSL has no ChaCha20-Poly1305");
  }
  return std::unique_ptr<Aead>(new Aead(cipher, key));
}

void Aead::seal(const Nonce& nonce, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
                std::span<std::byte, kTagBytes> tag) const {
  const KeyedContexts::Lease context = contexts_.begin(nonce, Way::kEncrypt);
  add(context, aad);
  context.update(plain, cipher);
  USBD_ASSERT(finish(context));
  USBD_ASSERT(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data()) ==
              1);
}

bool Aead::open(const Nonce& nonce, const AssociatedData& aad, Bytes cipher,
                std::span<const std::byte, kTagBytes> tag, MutableBytes plain) const {
  std::array<std::byte, kTagBytes> expected{};  // EVP wants to be able to change it
  std::ranges::copy(tag, expected.begin());
  const KeyedContexts::Lease context = contexts_.begin(nonce, Way::kDecrypt);
  USBD_ASSERT(
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, expected.data()) == 1);
  add(context, aad);
  context.update(cipher, plain);
  if (finish(context)) return true;
  wipe(plain);
  return false;
}

}  // namespace usbd::crypto
