// SPDX-License-Identifier: Apache-2.0
//
// PageMap: which 4 KiB pages of a memory device have been written. One bit a page in a mapping that
// takes memory only where bits were set, and above it one bit for each region of 16 MiB that says
// whether any page in it was ever set. So looking for the next written page in a terabyte of
// nothing reads 8 KiB, and clearing it writes nothing.
//
// Lock-free: any thread may set, clear and look at once. A page's bit is never set and cleared at
// once, because core keeps overlapping writes and trims apart; but pages of one word are, which is
// why changes are atomic.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "usbd/result.h"

namespace usbd {

/// Units: pages, but where a name says otherwise.
class PageMap {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  /// Errors: kNoMemory.
  static Result<std::unique_ptr<PageMap>> create(uint64_t pages);
  ~PageMap();
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  /// Sets the bits from `first` up to, not including, `end`.
  /// Order: what the caller stored before is seen by who then finds a bit set.
  void set(uint64_t first, uint64_t end);
  /// Clears them. Cheap where none is set.
  void clear(uint64_t first, uint64_t end);
  /// The first page from `first` on that is set; `end` if there is none before it.
  [[nodiscard]] uint64_t next_set(uint64_t first, uint64_t end) const;
  /// The first page from `first` on that is not set; `end` if there is none before it.
  [[nodiscard]] uint64_t next_clear(uint64_t first, uint64_t end) const;
  /// How many bits are set, all in all.
  [[nodiscard]] uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  using Word = std::atomic<uint64_t>;
  static constexpr uint64_t kWordBits = 64;
  static constexpr uint64_t kRegionPages = 4096;
  static constexpr uint64_t kRegionsPerWord = kRegionPages * kWordBits;

  explicit PageMap(uint64_t pages);
  void mark_region(uint64_t page);
  [[nodiscard]] bool region_marked(uint64_t page) const;
  [[nodiscard]] uint64_t skip_unmarked_regions(uint64_t page, uint64_t end) const;

  const uint64_t pages_;
  Word* words_ = nullptr;
  size_t words_bytes_ = 0;
  Word* regions_ = nullptr;
  size_t regions_bytes_ = 0;
  std::atomic<uint64_t> count_{0};
};

}  // namespace usbd
