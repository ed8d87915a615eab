// SPDX-License-Identifier: Apache-2.0
//
// FuzzInput: the fuzzer's bytes as a source of choices. When it is used up every choice is the
// first one, so that any bytes are a valid run and shorter inputs mean shorter runs.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

namespace usbd::fuzz {

class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : rest_(bytes) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  /// A number of all that is left, which another input hardly shares however alike it is: for what
  /// a fuzzer, which breeds from inputs that do much, must not come to choose every time.
  /// Ref: FNV-1a, 64 bits.
  [[nodiscard]] uint64_t digest() const {
    uint64_t value = 0xcbf29ce484222325;
    for (const uint8_t byte : rest_) value = (value ^ byte) * 0x100000001b3;
    return value ^ value >> 32U;
  }

  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  uint16_t word() {
    const unsigned high = byte();
    return static_cast<uint16_t>(high << 8U | byte());
  }
  /// One of `choices`.
  template <typename T, size_t N>
  T pick(const T (&choices)[N]) {
    return choices[byte() % N];
  }
  bool flip() { return (byte() & 1) != 0; }
  /// At most `most` bytes.
  std::string take(size_t most) {
    const size_t length = std::min(most, rest_.size());
    std::string bytes(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length);
    return bytes;
  }

 private:
  std::span<const uint8_t> rest_;
};

/// Says which promise was broken, and ends the process, so that the fuzzer keeps the input.
[[noreturn]] inline void broken(const std::string& promise) {
  std::fprintf(stderr, "broken promise: %s\n", promise.c_str());
  std::abort();
}
inline void promise(bool kept, const char* what) {
  if (!kept) broken(what);
}

}  // namespace usbd::fuzz
