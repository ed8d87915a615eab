// SPDX-License-Identifier: Apache-2.0
//
// The code is over index, sizes, associated data and ciphertext: where one part ends cannot be
// moved.

#include "crypto/stream_cipher.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/endian.h"

namespace usbd::crypto {
namespace {

using Way = KeyedContexts::Way;

/// What the code is made of before the data itself.
struct Preamble {
  Be64 index;
  Be64 aad_bytes;
  Be64 cipher_bytes;
};
static_assert(sizeof(Preamble) == 24);

Algorithm algorithm_of(StreamMode mode) {
  switch (mode) {
    case StreamMode::kCtr:
      return Algorithm::kAesCtr;
    case StreamMode::kCfb:
      return Algorithm::kAesCfb;
    case StreamMode::kOfb:
      return Algorithm::kAesOfb;
  }
  USBD_ASSERT(false);
}

}  // namespace

Result<std::unique_ptr<StreamCipher>> StreamCipher::create(StreamMode mode, const Keys& keys) {
  const size_t size = keys.cipher.size();
  if ((size != 16 && size != 24 && size != 32) || keys.iv.size() != size) {
    return Error(Errc::kInvalid, "a key of AES has 16, 24 or 32 bytes");
  }
  const EVP_CIPHER* const cipher = find_cipher(algorithm_of(mode), size);
  const EVP_CIPHER* const single = find_cipher(Algorithm::kAesEcb, size);
  if (cipher == nullptr || single == nullptr) {
    return Error(Errc::kNotSupported, "the installed OpenSSL lacks this mode of AES");
  }
  return std::unique_ptr<StreamCipher>(new StreamCipher(mode, cipher, single, keys));
}

StreamCipher::StreamCipher(StreamMode mode, const EVP_CIPHER* cipher, const EVP_CIPHER* single,
                           const Keys& keys)
    : mode_(mode), contexts_(cipher, keys.cipher), iv_contexts_(single, keys.iv), mac_(keys.mac) {}

StreamCipher::Block StreamCipher::first_block(uint64_t index) const {
  Block block{};
  const Be64 stored = index;
  std::memcpy(block.data(), &stored, sizeof(stored));
  if (mode_ != StreamMode::kCtr) {
    iv_contexts_.begin({}, Way::kEncrypt).update(block, block);
  }
  return block;
}

Sha256Digest StreamCipher::code_of(uint64_t index, const AssociatedData& aad, Bytes cipher) const {
  const Preamble preamble{.index = index,
                          .aad_bytes = aad.first.size() + aad.second.size(),
                          .cipher_bytes = cipher.size()};
  return mac_.of({wire_bytes(preamble), aad.first, aad.second, cipher});
}

void StreamCipher::seal(uint64_t index, const AssociatedData& aad, Bytes plain, MutableBytes cipher,
                        std::span<std::byte, kTagBytes> tag) const {
  contexts_.begin(first_block(index), Way::kEncrypt).update(plain, cipher);
  std::ranges::copy(code_of(index, aad, cipher), tag.begin());
}

bool StreamCipher::open(uint64_t index, const AssociatedData& aad, Bytes cipher,
                        std::span<const std::byte, kTagBytes> tag, MutableBytes plain) const {
  if (!equal_secretly(code_of(index, aad, cipher), tag)) {
    wipe(plain);
    return false;
  }
  contexts_.begin(first_block(index), Way::kDecrypt).update(cipher, plain);
  return true;
}

}  // namespace usbd::crypto
