// SPDX-License-Identifier: Apache-2.0
//
// AlignedBuffer: memory that begins on a page boundary and is touched from the start, so that no
// measured run pays for page faults or for an unlucky alignment.

#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace usbd::bench {

struct AlignedDelete {
  static constexpr std::align_val_t kAlignment{4096};
  void operator()(std::byte* memory) const { ::operator delete[](memory, kAlignment); }
};

using AlignedBuffer = std::unique_ptr<std::byte[], AlignedDelete>;

/// Units: bytes.
inline AlignedBuffer make_aligned_buffer(size_t size) {
  void* const memory = ::operator new[](size, AlignedDelete::kAlignment);
  std::memset(memory, 0, size);
  return AlignedBuffer(static_cast<std::byte*>(memory));
}

}  // namespace usbd::bench
