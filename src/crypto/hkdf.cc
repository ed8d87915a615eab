// SPDX-License-Identifier: Apache-2.0
//
// RFC 5869 as it is written; what OpenSSL has for it takes its arguments by name, at some length.

#include "crypto/hkdf.h"

#include <algorithm>
#include <array>

#include "base/assert.h"

namespace usbd::crypto {
namespace {

/// A digest that is wiped at the end of the expression it stands in.
struct Extracted {
  Extracted(Bytes key, Bytes salt) : digest(hmac_sha256(salt, key)) {}
  Extracted(const Extracted&) = delete;
  Extracted& operator=(const Extracted&) = delete;
  ~Extracted() { wipe(digest); }
  Sha256Digest digest;
};

}  // namespace

Hkdf::Hkdf(Bytes key, Bytes salt) : pseudo_random_key_(Extracted(key, salt).digest) {}

void Hkdf::expand(Bytes info, MutableBytes out) const {
  USBD_ASSERT(out.size() <= kHkdfBytesMax);
  Sha256Digest block{};
  size_t before = 0;  // bytes of the last block that go into the next
  for (std::array<std::byte, 1> count{std::byte{1}}; !out.empty();
       count[0] = static_cast<std::byte>(std::to_integer<unsigned>(count[0]) + 1)) {
    block = pseudo_random_key_.of({Bytes(block).first(before), info, count});
    before = block.size();
    const size_t taken = std::min(out.size(), block.size());
    std::ranges::copy(Bytes(block).first(taken), out.begin());
    out = out.subspan(taken);
  }
  wipe(block);
}

}  // namespace usbd::crypto
