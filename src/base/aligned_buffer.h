// SPDX-License-Identifier: Apache-2.0
//
// A piece of memory aligned for O_DIRECT, owned.

#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "usbd/buffer.h"

namespace usbd {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  /// Contents are not initialised.
  explicit AlignedBuffer(size_t size)
      : memory_(static_cast<std::byte*>(::operator new(size, std::align_val_t{kAlignment}))),
        size_(size) {}

  [[nodiscard]] MutableBytes bytes() const { return {memory_.get(), size_}; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const {
      ::operator delete(memory, std::align_val_t{kAlignment});
    }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t size_ = 0;
};

}  // namespace usbd
