// SPDX-License-Identifier: Apache-2.0
//
// Memory for keys. A Secret has pages of its own: they are left out of core files, not swapped out
// if the system allows it, and wiped before they are given back. A Wiped is for what is derived
// from keys and lives shortly. Neither can be copied or printed.

#pragma once

#include <array>
#include <cstddef>

#include "usbd/buffer.h"

namespace usbd::crypto {

/// Overwrites `data`, also where the compiler sees that nobody reads it any more.
void wipe(MutableBytes data);

class Secret {
 public:
  Secret() = default;
  /// `size` zero bytes.
  explicit Secret(size_t size);
  /// A copy of `bytes`, whose own memory the caller wipes.
  explicit Secret(Bytes bytes);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  /// Lifetime: until the Secret is moved from or gone.
  [[nodiscard]] Bytes bytes() const { return {memory_, size_}; }
  [[nodiscard]] MutableBytes writable() { return {memory_, size_}; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  /// Keeps the first `size` bytes. Range: size <= size(), asserted.
  void shrink(size_t size);

 private:
  std::byte* memory_ = nullptr;
  size_t size_ = 0;
  /// Whole pages, mapped.
  size_t mapped_ = 0;
};

template <size_t kSize>
class Wiped {
 public:
  Wiped() = default;
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ~Wiped() { wipe(bytes_); }

  [[nodiscard]] std::span<const std::byte, kSize> bytes() const { return bytes_; }
  [[nodiscard]] std::span<std::byte, kSize> writable() { return bytes_; }

 private:
  std::array<std::byte, kSize> bytes_{};
};

}  // namespace usbd::crypto
