// SPDX-License-Identifier: Apache-2.0
//
// Randomness is injected: code that needs it takes an Rng&, so that the same code runs from a seed
// in tests and from the system's entropy in the daemon. Nothing else in usbd calls rand(),
// std::random_device or getrandom().

#pragma once

#include <array>
#include <cstdint>

#include "usbd/buffer.h"

namespace usbd {

/// A source of random bits. Threads: as the implementation says.
class Rng {
 public:
  virtual ~Rng() = default;

  /// The next 64 bits, each value equally likely.
  virtual uint64_t next() = 0;
  /// Overwrites all of `data` with random bytes.
  virtual void fill(MutableBytes data) = 0;

  /// A number from 0 to `limit` - 1, each equally likely. Range: limit > 0, asserted.
  uint64_t below(uint64_t limit);
  /// A number from `first` to `last`, both included. Range: first <= last, asserted.
  uint64_t between(uint64_t first, uint64_t last);
  /// True once in `count` times on average. Range: count > 0, asserted.
  bool one_in(uint64_t count) { return below(count) == 0; }
};

/// The same numbers for the same seed, on every machine and in every version of usbd: seeds are
/// written into bug reports. Not for secrets.
/// Threads: one at a time.
/// Ref:     xoshiro256**, its state filled by splitmix64 (Blackman and Vigna).
class SeededRng final : public Rng {
 public:
  explicit SeededRng(uint64_t seed);

  uint64_t next() override;
  void fill(MutableBytes data) override;

  /// A generator of its own whose numbers depend on this seed and on `stream`, but not on how many
  /// numbers were drawn here.
  [[nodiscard]] SeededRng fork(uint64_t stream) const;

 private:
  uint64_t seed_;
  std::array<uint64_t, 4> state_{};
};

/// The kernel's entropy, good enough for keys and nonces. Threads: any, at the same time.
class SystemRng final : public Rng {
 public:
  uint64_t next() override;
  void fill(MutableBytes data) override;
};

/// Spreads the bits of `value`: one step of splitmix64. For hashes and seeds, not for secrets.
[[nodiscard]] constexpr uint64_t mix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

}  // namespace usbd
