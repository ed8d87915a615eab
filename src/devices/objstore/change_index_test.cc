// SPDX-License-Identifier: Apache-2.0
//
// A batch beside a plain list of what each block was last given.

#include "devices/objstore/change_index.h"

#include <array>
#include <optional>

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t kBlocks = 60;

struct Wanted {
  uint64_t number = 0;
  ExtentKind kind = ExtentKind::kData;
  uint32_t place = 0;
};
using Model = std::array<std::optional<Wanted>, kBlocks>;

void expect_equal(const Batch& batch, const Model& model, BlockRange range) {
  uint64_t at = range.first;
  for (const Change& change : batch.find(range)) {
    for (; at < change.blocks.first; ++at) ASSERT_FALSE(model.at(at)) << at;
    for (uint64_t i = 0; i < change.blocks.count; ++i, ++at) {
      ASSERT_TRUE(model.at(at)) << at;
      EXPECT_EQ(model.at(at)->number, change.number);
      EXPECT_EQ(model.at(at)->kind, change.kind);
      if (change.kind == ExtentKind::kData) {
        EXPECT_EQ(model.at(at)->place, change.place.block + i);
      }
    }
  }
  for (; at < range.end(); ++at) ASSERT_FALSE(model.at(at)) << at;
}

TEST(Batch, KnowsTheLastChangeOfEachBlock) {
  SeededRng rng(4);
  for (int round = 0; round < 200; ++round) {
    Batch batch(1, Nanos(0));
    Model model;
    for (uint64_t number = 1; number <= 40; ++number) {
      const uint64_t first = rng.below(kBlocks);
      const BlockRange blocks(first, rng.between(1, std::min<uint64_t>(kBlocks - first, 9)));
      const ExtentKind kind = rng.one_in(4) ? ExtentKind::kTrim : ExtentKind::kData;
      const auto place = static_cast<uint32_t>(rng.below(100));
      batch.add({.blocks = blocks, .number = number, .kind = kind, .place = {nullptr, place}});
      for (uint64_t i = 0; i < blocks.count; ++i) {
        model.at(first + i) = Wanted(number, kind, place + static_cast<uint32_t>(i));
      }
    }
    expect_equal(batch, model, BlockRange(0, kBlocks));
    expect_equal(batch, model, BlockRange(17, 8));
    uint64_t data = 0;
    for (const auto& block : model) {
      if (block && block->kind == ExtentKind::kData) ++data;
    }
    EXPECT_EQ(batch.data_blocks(), data);
    EXPECT_EQ(batch.all().size(), batch.extents());
    EXPECT_EQ(batch.last_number(), 40U);
  }
}

}  // namespace
}  // namespace usbd::objstore
