// SPDX-License-Identifier: Apache-2.0
//
// The seeded generator (xoshiro256**) and the kernel's entropy.

#include "base/random.h"

#include <bit>
#include <cerrno>
#include <cstring>

#include <sys/random.h>

#include "base/assert.h"

namespace usbd {
namespace {

/// Larger requests may be interrupted by a signal. Units: bytes. Ref: getrandom(2).
constexpr size_t kEntropyCallMax = 256;

}  // namespace

uint64_t Rng::below(uint64_t limit) {
  USBD_ASSERT(limit > 0);
  // Numbers under 2^64 mod limit are drawn again: without that the low results were likelier.
  const uint64_t rejected = (0 - limit) % limit;
  uint64_t bits = next();
  while (bits < rejected) bits = next();
  return bits % limit;
}

uint64_t Rng::between(uint64_t first, uint64_t last) {
  USBD_ASSERT(first <= last);
  const uint64_t span = last - first;
  return span == UINT64_MAX ? next() : first + below(span + 1);
}

SeededRng::SeededRng(uint64_t seed) : seed_(seed) {
  constexpr uint64_t kStep = 0x9E3779B97F4A7C15U;
  for (size_t i = 0; i < state_.size(); ++i) state_[i] = mix64(seed + i * kStep);
}

uint64_t SeededRng::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17U;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void SeededRng::fill(MutableBytes data) {
  while (!data.empty()) {
    const uint64_t bits = next();
    const size_t count = data.size() < sizeof bits ? data.size() : sizeof bits;
    std::memcpy(data.data(), &bits, count);
    data = data.subspan(count);
  }
}

SeededRng SeededRng::fork(uint64_t stream) const {
  return SeededRng(mix64(seed_ ^ mix64(stream)));
}

uint64_t SystemRng::next() {
  uint64_t bits = 0;
  fill(std::as_writable_bytes(std::span(&bits, 1)));
  return bits;
}

void SystemRng::fill(MutableBytes data) {
  while (!data.empty()) {
    const size_t wanted = data.size() < kEntropyCallMax ? data.size() : kEntropyCallMax;
    const ssize_t got = ::getrandom(data.data(), wanted, 0);
    if (got < 0 && errno == EINTR) continue;
    // No other error is possible with these arguments, and going on without entropy is not safe.
    USBD_ASSERT(got > 0);
    data = data.subspan(static_cast<size_t>(got));
  }
}

}  // namespace usbd
