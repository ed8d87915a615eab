// SPDX-License-Identifier: Apache-2.0
//
// Bits by words of 64. The mapping's untouched words are zero without being in memory; only set()
// stores into a word for the first time.

#include "devices/memory/page_map.h"

#include <algorithm>
#include <bit>

#include <sys/mman.h>

#include "base/assert.h"

namespace usbd {
namespace {

static_assert(sizeof(std::atomic<uint64_t>) == sizeof(uint64_t));
static_assert(std::atomic<uint64_t>::is_always_lock_free);

std::atomic<uint64_t>* map_words(uint64_t count, size_t& bytes) {
  bytes = count * sizeof(uint64_t);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  // Zeroed memory is what a lock-free atomic that holds zero looks like.
  return static_cast<std::atomic<uint64_t>*>(memory);
}

/// The bits of word `word` that lie in [first, end).
uint64_t mask_of(uint64_t word, uint64_t first, uint64_t end) {
  const uint64_t base = word * 64;
  const uint64_t low = first > base ? first - base : 0;
  const uint64_t high = std::min<uint64_t>(end - base, 64);
  const uint64_t below_high = high == 64 ? UINT64_MAX : (uint64_t{1} << high) - 1;
  return below_high & (UINT64_MAX << low);
}

}  // namespace

PageMap::PageMap(uint64_t pages) : pages_(pages) {}

Result<std::unique_ptr<PageMap>> PageMap::create(uint64_t pages) {
  std::unique_ptr<PageMap> map(new PageMap(pages));
  map->words_ = map_words(pages / kWordBits + 1, map->words_bytes_);
  map->regions_ = map_words(pages / kRegionsPerWord + 1, map->regions_bytes_);
  if (map->words_ == nullptr || map->regions_ == nullptr) return Errc::kNoMemory;
  return map;
}

PageMap::~PageMap() {
  if (words_ != nullptr) munmap(words_, words_bytes_);
  if (regions_ != nullptr) munmap(regions_, regions_bytes_);
}

void PageMap::mark_region(uint64_t page) {
  Word& word = regions_[page / kRegionsPerWord];
  const uint64_t bit = uint64_t{1} << (page / kRegionPages % kWordBits);
  if ((word.load(std::memory_order_acquire) & bit) == 0) word.fetch_or(bit);
}

bool PageMap::region_marked(uint64_t page) const {
  const uint64_t word = regions_[page / kRegionsPerWord].load(std::memory_order_acquire);
  return (word >> (page / kRegionPages % kWordBits) & 1) != 0;
}

uint64_t PageMap::skip_unmarked_regions(uint64_t page, uint64_t end) const {
  while (page < end && !region_marked(page)) {
    const uint64_t regions = regions_[page / kRegionsPerWord].load(std::memory_order_acquire) >>
                             (page / kRegionPages % kWordBits);
    const uint64_t word_end = (page / kRegionsPerWord + 1) * kRegionsPerWord;
    const uint64_t region = page / kRegionPages + static_cast<uint64_t>(std::countr_zero(regions));
    page = regions == 0 ? word_end : region * kRegionPages;
  }
  return std::min(page, end);
}

void PageMap::set(uint64_t first, uint64_t end) {
  USBD_ASSERT(first <= end && end <= pages_);
  for (uint64_t page = first; page < end; page = (page / kWordBits + 1) * kWordBits) {
    // A word lies in one region. The region goes first: whoever sees it without the bit sees a
    // hole, which was true a moment ago.
    mark_region(page);
    Word& word = words_[page / kWordBits];
    const uint64_t mask = mask_of(page / kWordBits, page, end);
    if ((word.load(std::memory_order_acquire) & mask) == mask) continue;  // the usual overwrite
    const uint64_t before = word.fetch_or(mask, std::memory_order_release);
    const auto fresh = static_cast<uint64_t>(std::popcount(mask & ~before));
    if (fresh > 0) count_.fetch_add(fresh, std::memory_order_relaxed);
  }
}

void PageMap::clear(uint64_t first, uint64_t end) {
  USBD_ASSERT(first <= end && end <= pages_);
  for (uint64_t page = skip_unmarked_regions(first, end); page < end;
       page = skip_unmarked_regions((page / kWordBits + 1) * kWordBits, end)) {
    Word& word = words_[page / kWordBits];
    const uint64_t mask = mask_of(page / kWordBits, page, end);
    if ((word.load(std::memory_order_acquire) & mask) == 0) continue;
    const uint64_t before = word.fetch_and(~mask);
    const auto gone = static_cast<uint64_t>(std::popcount(mask & before));
    if (gone > 0) count_.fetch_sub(gone, std::memory_order_relaxed);
  }
}

uint64_t PageMap::next_set(uint64_t first, uint64_t end) const {
  uint64_t page = skip_unmarked_regions(first, end);
  while (page < end) {
    const uint64_t bits =
        words_[page / kWordBits].load(std::memory_order_acquire) >> (page % kWordBits);
    if (bits != 0) return std::min(end, page + static_cast<uint64_t>(std::countr_zero(bits)));
    page = skip_unmarked_regions((page / kWordBits + 1) * kWordBits, end);
  }
  return end;
}

uint64_t PageMap::next_clear(uint64_t first, uint64_t end) const {
  uint64_t page = first;
  while (page < end && region_marked(page)) {
    const uint64_t bits =
        ~words_[page / kWordBits].load(std::memory_order_acquire) >> (page % kWordBits);
    if (bits != 0) return std::min(end, page + static_cast<uint64_t>(std::countr_zero(bits)));
    page = (page / kWordBits + 1) * kWordBits;
  }
  return std::min(page, end);
}

}  // namespace usbd
