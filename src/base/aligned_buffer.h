// SPDX-License-Identifier: Apache-2.0
//
// A piece of memory aligned for direct I/O (alignment_of()), owned.

#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "usbd/buffer.h"

namespace usbd {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;
  /// Of buffers below kSmall: to align those to pages takes up to twice their size, and few devices
  /// want more than this.
  static constexpr size_t kSmallAlignment = 512;
  static constexpr size_t kSmall = 64U << 10;

  /// What a buffer of `size` bytes is aligned to.
  static constexpr size_t alignment_of(size_t size) {
    return size < kSmall ? kSmallAlignment : kAlignment;
  }

  AlignedBuffer() = default;
  /// Contents are not initialised.
  explicit AlignedBuffer(size_t size)
      : memory_(static_cast<std::byte*>(::operator new(size, std::align_val_t{alignment_of(size)})),
                Free{size}) {}

  [[nodiscard]] MutableBytes bytes() const { return {memory_.get(), size()}; }
  [[nodiscard]] size_t size() const { return memory_.get_deleter().size; }

 private:
  struct Free {
    constexpr Free() noexcept : size(0) {}
    constexpr explicit Free(size_t s) noexcept : size(s) {}
    void operator()(std::byte* memory) const {
      ::operator delete(memory, std::align_val_t{alignment_of(size)});
    }
    size_t size;
  };
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace usbd
