// SPDX-License-Identifier: Apache-2.0
//
// What the files of this folder share of OpenSSL's EVP interface; nobody else includes it.
// Algorithms are looked up once for the process: to look one up by name takes longer than to
// encrypt a block. A context keeps its key, so that an operation sets only the nonce.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <openssl/evp.h>

#include "base/mutex.h"
#include "crypto/secret.h"
#include "usbd/buffer.h"

namespace usbd::crypto {

struct FreeOpenssl {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeOpenssl>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, FreeOpenssl>;

enum class Algorithm : uint8_t { kAesGcm, kAesCtr, kAesCfb, kAesOfb, kAesEcb, kChaCha20Poly1305 };

inline constexpr size_t kKeyBytesMax = 32;
inline constexpr size_t kAesBlockBytes = 16;

/// The algorithm for keys of this size; nullptr if there is no such size, or if the installed
/// OpenSSL lacks it (one restricted to approved algorithms lacks ChaCha20). Threads: any.
[[nodiscard]] const EVP_CIPHER* find_cipher(Algorithm algorithm, size_t key_bytes);
[[nodiscard]] const EVP_MD* find_sha256();

inline const unsigned char* in(Bytes bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline unsigned char* out(MutableBytes bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

/// The contexts of one algorithm under one key. Threads: any, at the same time.
class KeyedContexts {
 public:
  enum class Way : uint8_t { kDecrypt = 0, kEncrypt = 1 };

  /// Range: `cipher` is not null and takes keys of this size, asserted.
  KeyedContexts(const EVP_CIPHER* cipher, Bytes key);

  /// A context for one operation, given back when the Lease is gone.
  class Lease {
   public:
    Lease(const KeyedContexts& owner, CipherContext context)
        : owner_(owner), context_(std::move(context)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { owner_.give_back(std::move(context_)); }

    [[nodiscard]] EVP_CIPHER_CTX* get() const { return context_.get(); }
    /// Transforms `from` into `to`, of the same size; they are the same memory or do not overlap.
    void update(Bytes from, MutableBytes to) const;

   private:
    const KeyedContexts& owner_;
    CipherContext context_;
  };

  /// Ready to transform data under `iv`, which has the size that the algorithm wants.
  [[nodiscard]] Lease begin(Bytes iv, Way way) const;

 private:
  friend class Lease;
  [[nodiscard]] CipherContext take() const;
  void give_back(CipherContext context) const;

  const EVP_CIPHER* const cipher_;
  Wiped<kKeyBytesMax> key_;
  mutable Mutex mutex_;
  mutable std::vector<CipherContext> free_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::crypto
