// SPDX-License-Identifier: Apache-2.0
//
// The bytes that verifying runs write and expect: every 8-byte word is a function of its own offset
// and of the run's seed. So data that is torn, misplaced, or left from a run with another seed is
// noticed. Also the random numbers of the load generator, which cost one multiplication each.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "usbd/buffer.h"

namespace usbd::bench {

/// Mixes all bits of `value`. Ref: the finalizer of splitmix64.
constexpr uint64_t mix_bits(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

/// A stream of random numbers; the same seed gives the same stream. Ref: splitmix64.
class RandomStream {
 public:
  explicit constexpr RandomStream(uint64_t seed) : state_(mix_bits(seed + kStep)) {}

  constexpr uint64_t next() { return mix_bits(state_ += kStep); }
  /// A number below `limit`. Range: limit > 0.
  constexpr uint64_t below(uint64_t limit) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(next()) * limit) >> 64);
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  uint64_t state_;
};

constexpr uint64_t pattern_word(uint64_t seed, uint64_t offset) {
  return mix_bits(offset ^ (seed << 48) ^ seed);
}

/// Range: data.size() is a multiple of 8.
inline void fill_pattern(MutableBytes data, uint64_t seed, uint64_t offset) {
  for (size_t at = 0; at < data.size(); at += sizeof(uint64_t)) {
    const uint64_t word = pattern_word(seed, offset + at);
    std::memcpy(data.data() + at, &word, sizeof(word));
  }
}

/// Range: data.size() is a multiple of 8.
inline bool has_pattern(Bytes data, uint64_t seed, uint64_t offset) {
  for (size_t at = 0; at < data.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, data.data() + at, sizeof(word));
    if (word != pattern_word(seed, offset + at)) return false;
  }
  return true;
}

}  // namespace usbd::bench
