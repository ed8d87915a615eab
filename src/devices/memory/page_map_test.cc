// SPDX-License-Identifier: Apache-2.0
//
// PageMap against a plain set of page numbers, and at the size of a terabyte.

#include "devices/memory/page_map.h"

#include <chrono>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd {
namespace {

std::unique_ptr<PageMap> make_map(uint64_t pages) {
  Result<std::unique_ptr<PageMap>> map = PageMap::create(pages);
  EXPECT_TRUE(map.has_value());
  return *std::move(map);
}

TEST(PageMap, AgreesWithASetOfPages) {
  constexpr uint64_t kPages = 40'000;  // several regions, the last one not whole
  const auto map = make_map(kPages);
  std::set<uint64_t> model;
  SeededRng rng(11);
  for (int round = 0; round < 2'000; ++round) {
    const uint64_t first = rng.below(kPages);
    const uint64_t end = std::min(kPages, first + rng.below(rng.one_in(8) ? 9'000 : 200));
    if (rng.one_in(2)) {
      map->set(first, end);
      for (uint64_t page = first; page < end; ++page) model.insert(page);
    } else {
      map->clear(first, end);
      model.erase(model.lower_bound(first), model.lower_bound(end));
    }
    ASSERT_EQ(map->count(), model.size());
    const uint64_t from = rng.below(kPages);
    const uint64_t to = rng.between(from, kPages);
    const auto next = model.lower_bound(from);
    const uint64_t next_set = next == model.end() || *next >= to ? to : *next;
    ASSERT_EQ(map->next_set(from, to), next_set) << from << " to " << to << ", round " << round;
    uint64_t next_clear = from;
    while (next_clear < to && model.contains(next_clear)) ++next_clear;
    ASSERT_EQ(map->next_clear(from, to), next_clear) << from << " to " << to;
  }
}

TEST(PageMap, SkipsATerabyteOfNothing) {
  constexpr uint64_t kPages = uint64_t{1} << 28;
  const auto map = make_map(kPages);
  map->set(kPages - 1, kPages);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(map->next_set(0, kPages), kPages - 1);
    map->clear(0, kPages - 1);
  }
  // 200 scans; without the regions each would read 32 MiB.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(500));
  EXPECT_EQ(map->count(), 1U);
}

TEST(PageMap, LosesNoBitOfAWordThatThreadsShare) {
  const auto map = make_map(64);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&map, t] {
      for (int i = 0; i < 10'000; ++i) {
        for (uint64_t page = t; page < 64; page += 4) map->set(page, page + 1);
        for (uint64_t page = t; page < 64; page += 4) map->clear(page, page + 1);
      }
      for (uint64_t page = t; page < 64; page += 4) map->set(page, page + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(map->count(), 64U);
  EXPECT_EQ(map->next_clear(0, 64), 64U);
}

}  // namespace
}  // namespace usbd
