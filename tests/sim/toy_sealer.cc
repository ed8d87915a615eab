// SPDX-License-Identifier: Apache-2.0
//
// Exclusive or with a stream of mix64, and two checksums of it all.

#include "sim/toy_sealer.h"

#include <cstring>

#include "base/crc32c.h"
#include "base/random.h"

namespace usbd::sim {
namespace {

class ToySealer final : public journal::Sealer {
 public:
  explicit ToySealer(const journal::Salt& salt) : salt_(salt) {}

  journal::Tag seal(const Nonce& nonce, Bytes aad, Bytes plain, MutableBytes out) const override {
    const journal::Tag tag = tag_of(nonce, aad, plain);
    mask(nonce, plain, out);
    return tag;
  }

  [[nodiscard]] bool open(const Nonce& nonce, Bytes aad, Bytes sealed, const journal::Tag& tag,
                          MutableBytes out) const override {
    mask(nonce, sealed, out);
    if (tag_of(nonce, aad, out) == tag) return true;
    std::ranges::fill(out, std::byte(0));
    return false;
  }

 private:
  [[nodiscard]] uint64_t start(const Nonce& nonce) const {
    return mix64(crc32c(salt_) | uint64_t{crc32c(nonce)} << 32U);
  }

  void mask(const Nonce& nonce, Bytes from, MutableBytes to) const {
    const uint64_t key = start(nonce);
    for (size_t at = 0; at < from.size(); at += sizeof(uint64_t)) {
      uint64_t word = 0;
      const size_t length = std::min(sizeof(word), from.size() - at);
      std::memcpy(&word, from.data() + at, length);
      word ^= mix64(key + at);
      std::memcpy(to.data() + at, &word, length);
    }
  }

  [[nodiscard]] journal::Tag tag_of(const Nonce& nonce, Bytes aad, Bytes plain) const {
    const uint64_t first = mix64(start(nonce) ^ crc32c(plain));
    const uint64_t second = mix64(first ^ crc32c(aad, crc32c(plain)));
    journal::Tag tag;
    std::memcpy(tag.data(), &first, sizeof(first));
    std::memcpy(tag.data() + sizeof(first), &second, sizeof(second));
    return tag;
  }

  const journal::Salt salt_;
};

}  // namespace

std::shared_ptr<const journal::Sealer> toy_sealer(const journal::Salt& salt) {
  return std::make_shared<ToySealer>(salt);
}

}  // namespace usbd::sim
