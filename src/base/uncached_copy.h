// SPDX-License-Identifier: Apache-2.0
//
// copy_uncached(): memcpy for data that nobody reads soon, such as what a client writes to a volume
// in memory. It stores past the caches, which saves reading each line of the target first (for 4
// KiB to random places of 1 GiB: half of the time), and leaves the caches to those who use them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "usbd/buffer.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace usbd {

/// Range: caller guarantees to.size() >= from.size(), and that they do not overlap.
inline void copy_uncached(MutableBytes to, Bytes from) {
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
  constexpr size_t kLine = 64;
  constexpr size_t kVector = sizeof(__m128i);
  const size_t before = -reinterpret_cast<uintptr_t>(to.data()) % kLine;
  if (from.size() >= before + kLine) {
    std::memcpy(to.data(), from.data(), before);
    to = to.subspan(before);
    from = from.subspan(before);
    const size_t whole = from.size() - from.size() % kLine;
    for (size_t i = 0; i < whole; i += kVector) {
      const auto* const source = reinterpret_cast<const __m128i*>(from.data() + i);
      _mm_stream_si128(reinterpret_cast<__m128i*>(to.data() + i), _mm_loadu_si128(source));
    }
    _mm_sfence();  // such stores are not ordered before later ones
    to = to.subspan(whole);
    from = from.subspan(whole);
  }
#endif
  std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace usbd
