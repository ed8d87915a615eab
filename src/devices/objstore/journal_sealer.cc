// SPDX-License-Identifier: Apache-2.0
//
// The journal's nonces are used as they are: one for each block of each record of the session.

#include "devices/objstore/journal_sealer.h"

#include <string_view>
#include <utility>

#include "base/assert.h"
#include "crypto/aead.h"
#include "crypto/hkdf.h"
#include "crypto/secret.h"

namespace usbd::objstore {
namespace {

constexpr std::string_view kPurpose = "usbd-jrn-v1";
constexpr size_t kKeyBytes = 32;

class AeadSealer final : public journal::Sealer {
 public:
  explicit AeadSealer(std::unique_ptr<crypto::Aead> aead) : aead_(std::move(aead)) {}

  journal::Tag seal(const Nonce& nonce, Bytes aad, Bytes plain, MutableBytes out) const override {
    journal::Tag tag;
    aead_->seal(nonce, crypto::AssociatedData(aad), plain, out, tag);
    return tag;
  }
  [[nodiscard]] bool open(const Nonce& nonce, Bytes aad, Bytes sealed, const journal::Tag& tag,
                          MutableBytes out) const override {
    return aead_->open(nonce, crypto::AssociatedData(aad), sealed, tag, out);
  }

 private:
  const std::unique_ptr<crypto::Aead> aead_;
};

}  // namespace

journal::SealerSource journal_sealers(Bytes key) {
  USBD_ASSERT(!key.empty());
  return [key](const journal::Salt& salt) -> std::shared_ptr<const journal::Sealer> {
    const crypto::Hkdf hkdf(key, salt);
    crypto::Wiped<kKeyBytes> session_key;
    hkdf.expand(std::as_bytes(std::span(kPurpose)), session_key.writable());
    Result<std::unique_ptr<crypto::Aead>> aead =
        crypto::Aead::create(crypto::AeadKind::kAesGcm, session_key.bytes());
    USBD_ASSERT(aead.has_value());  // every OpenSSL has it, and the size is right
    return std::make_shared<const AeadSealer>(*std::move(aead));
  };
}

}  // namespace usbd::objstore
