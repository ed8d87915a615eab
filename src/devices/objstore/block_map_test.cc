// SPDX-License-Identifier: Apache-2.0
//
// Against a plain array, over many seeds, and what an array does not have: forms, memory, changes,
// encodings, and the encodings that are refused.

#include "devices/objstore/block_map.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/endian.h"
#include "base/random.h"

namespace usbd::objstore {
namespace {

constexpr size_t kFlatBytes = 8192;
/// The longest list that is shorter than the array.
constexpr size_t kListMax = 682;

void ignore(uint32_t /*slot*/, uint32_t /*blocks*/) {}

/// The same map as a plain array.
class Model {
 public:
  explicit Model(uint64_t blocks) : at_(blocks) {}

  void set(BlockRange range, Location location) {
    for (uint64_t i = 0; i < range.count; ++i) {
      Location& old = at_[range.first + i];
      if (old.slot != 0) ++replaced[old.slot];
      old = after(location, i);
    }
  }

  uint64_t move(BlockRange range, Location from, Location to) {
    uint64_t moved = 0;
    for (uint64_t i = 0; i < range.count; ++i) {
      if (at_[range.first + i] != after(from, i)) continue;
      set({range.first + i, 1}, after(to, i));
      ++moved;
    }
    return moved;
  }

  [[nodiscard]] std::vector<MappedRun> find(BlockRange range) const {
    std::vector<MappedRun> runs;
    for (uint64_t block = range.first; block < range.end(); ++block) {
      const bool joined = !runs.empty() && block % kLeafBlocks != 0 &&
                          after(runs.back().location, runs.back().blocks.count) == at_[block];
      if (joined) {
        ++runs.back().blocks.count;
      } else {
        runs.push_back({{block, 1}, at_[block]});
      }
    }
    return runs;
  }

  [[nodiscard]] std::map<uint32_t, uint64_t> counts() const {
    std::map<uint32_t, uint64_t> counts;
    for (const Location& location : at_) {
      if (location.slot != 0) ++counts[location.slot];
    }
    return counts;
  }

  std::map<uint32_t, uint64_t> replaced = {};

 private:
  static Location after(Location location, uint64_t blocks) {
    if (location.slot == 0) return {};
    return {location.slot, static_cast<uint32_t>(location.position + blocks)};
  }

  std::vector<Location> at_;
};

/// Maps every other block of leaf 0 up to `count` extents.
void fragment(BlockMap& map, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) map.set({i, 1}, {1 + i % 2, i}, ignore);
}

/// Of the map when nothing is in it, but was once.
uint64_t empty_memory(BlockMap& map) {
  map.set({0, map.blocks()}, {1, 0}, ignore);
  map.set({0, map.blocks()}, {}, ignore);
  for (uint64_t leaf = 0; leaf < map.leaves(); ++leaf) map.clear_changed(leaf);
  return map.memory();
}

std::vector<std::byte> concat(std::initializer_list<Bytes> parts) {
  std::vector<std::byte> out;
  for (const Bytes part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

struct RawExtent {
  Le16 first;
  Le16 count;
  Le32 slot;
  Le32 position;
};

std::vector<std::byte> list_of(std::initializer_list<RawExtent> extents) {
  std::vector<std::byte> out;
  for (const RawExtent& extent : extents) out = concat({out, wire_bytes(extent)});
  return out;
}

std::string refusal(BlockMap& map, uint64_t leaf, Bytes encoded) {
  const Result<void> result = map.decode_leaf(leaf, encoded);
  if (result) return "accepted";
  EXPECT_TRUE(result.error().is(Errc::kInvalid));
  return result.error().context();
}

TEST(BlockMap, IsNowhereAtFirst) {
  const BlockMap map(3000);
  EXPECT_EQ(map.leaves(), 3U);
  const std::vector<MappedRun> expected = {{{5, 1019}, {}}, {{1024, 1024}, {}}, {{2048, 952}, {}}};
  EXPECT_EQ(map.find({5, 2995}), expected);
  EXPECT_TRUE(map.find({7, 0}).empty());
  EXPECT_FALSE(map.changed(0));
}

TEST(BlockMap, FindsWhatWasSetAcrossLeaves) {
  BlockMap map(4096);
  map.set({1000, 100}, {7, 16}, ignore);
  const std::vector<MappedRun> expected = {
      {{999, 1}, {}}, {{1000, 24}, {7, 16}}, {{1024, 76}, {7, 40}}, {{1100, 10}, {}}};
  EXPECT_EQ(map.find({999, 111}), expected);
  const std::vector<MappedRun> inside = {{{1050, 3}, {7, 66}}};
  EXPECT_EQ(map.find({1050, 3}), inside);
}

TEST(BlockMap, SplitsWhatIsOverwrittenInItsMiddle) {
  BlockMap map(1024);
  map.set({0, 100}, {1, 0}, ignore);
  std::map<uint32_t, uint32_t> replaced;
  map.set({40, 10}, {2, 5},
          [&replaced](uint32_t slot, uint32_t blocks) { replaced[slot] += blocks; });
  const std::vector<MappedRun> expected = {
      {{0, 40}, {1, 0}}, {{40, 10}, {2, 5}}, {{50, 50}, {1, 50}}};
  EXPECT_EQ(map.find({0, 100}), expected);
  EXPECT_EQ(replaced, (std::map<uint32_t, uint32_t>{{1, 10}}));
}

TEST(BlockMap, MergesNeighboursThatContinueEachOther) {
  BlockMap map(1024);
  map.set({0, 10}, {1, 0}, ignore);
  map.set({20, 10}, {1, 20}, ignore);
  map.set({10, 10}, {1, 10}, ignore);
  EXPECT_EQ(map.find({0, 30}), (std::vector<MappedRun>{{{0, 30}, {1, 0}}}));
  EXPECT_EQ(map.encode_leaf(0).size(), 12U);
  map.set({30, 10}, {1, 31}, ignore);  // not the next position
  map.set({40, 10}, {2, 41}, ignore);  // another object
  EXPECT_EQ(map.encode_leaf(0).size(), 36U);
}

TEST(BlockMap, UnmapsAndForgetsALeafOnceItsChangeIsWritten) {
  BlockMap map(4096);
  const uint64_t empty = empty_memory(map);
  map.set({0, 2048}, {1, 0}, ignore);
  EXPECT_GT(map.memory(), empty);
  uint64_t replaced = 0;
  map.set({0, 4096}, {}, [&replaced](uint32_t /*slot*/, uint32_t blocks) { replaced += blocks; });
  EXPECT_EQ(replaced, 2048U);
  EXPECT_TRUE(map.changed(0));
  EXPECT_TRUE(map.changed(1));
  EXPECT_FALSE(map.changed(2));  // nothing was there
  EXPECT_TRUE(map.encode_leaf(0).empty());
  map.clear_changed(0);
  map.clear_changed(1);
  EXPECT_FALSE(map.changed(0));
  EXPECT_EQ(map.memory(), empty);
}

TEST(BlockMap, BecomesAnArrayWhenTheListIsNoShorterAndAListAgain) {
  BlockMap map(1024);
  fragment(map, kListMax);
  EXPECT_EQ(map.encode_leaf(0).size(), kListMax * 12);
  fragment(map, kListMax + 1);
  EXPECT_EQ(map.encode_leaf(0).size(), kFlatBytes);
  const std::vector<MappedRun> runs = map.find({0, 1024});
  ASSERT_EQ(runs.size(), kListMax + 2);
  EXPECT_EQ(runs[kListMax], (MappedRun{{kListMax, 1}, {1, kListMax}}));
  EXPECT_EQ(runs.back(), (MappedRun{{kListMax + 1, 1024 - kListMax - 1}, {}}));
  map.set({0, 2}, {9, 0}, ignore);
  EXPECT_EQ(map.encode_leaf(0).size(), kListMax * 12);
}

TEST(BlockMap, TakesNothingPerBlockWhereWritesWereSequential) {
  constexpr uint64_t kBlocks = (uint64_t{1} << 40U) / kBlockBytes;
  BlockMap map(kBlocks);
  for (uint64_t at = 0; at < kBlocks; at += 8192) {
    map.set({at, 8192}, {static_cast<uint32_t>(1 + at / 8192), 0}, ignore);
  }
  EXPECT_LT(map.memory(), 20U << 20U);
  map.set({kBlocks - 1, 1}, {1, 1}, ignore);
  EXPECT_EQ(map.find({kBlocks - 2, 2}).size(), 2U);
}

TEST(BlockMap, TakesLittleMoreThanEightBytesABlockWhereWritesWereNot) {
  constexpr uint64_t kBlocks = 64 * kLeafBlocks;
  BlockMap map(kBlocks);
  const uint64_t empty = empty_memory(map);
  SeededRng rng(1);
  for (uint64_t i = 0; i < 8 * kBlocks; ++i) {
    map.set({rng.below(kBlocks), 1}, {static_cast<uint32_t>(1 + i % 1000), 0}, ignore);
  }
  EXPECT_GE(map.memory(), empty + 64 * kFlatBytes);
  EXPECT_LE(map.memory(), empty + 64 * (kFlatBytes + 64));
}

TEST(BlockMap, MovesOnlyWhatIsStillAtItsSource) {
  BlockMap map(4096);
  map.set({1000, 100}, {1, 0}, ignore);
  map.set({1010, 10}, {2, 0}, ignore);
  map.set({1030, 10}, {1, 0}, ignore);  // the object, but another place in it
  std::map<uint32_t, uint32_t> replaced;
  const uint64_t moved =
      map.move({1000, 100}, {1, 0}, {3, 50},
               [&replaced](uint32_t slot, uint32_t blocks) { replaced[slot] += blocks; });
  EXPECT_EQ(moved, 80U);
  EXPECT_EQ(replaced, (std::map<uint32_t, uint32_t>{{1, 80}}));
  const std::vector<MappedRun> expected = {{{1000, 10}, {3, 50}}, {{1010, 10}, {2, 0}},
                                           {{1020, 4}, {3, 70}},  {{1024, 6}, {3, 74}},
                                           {{1030, 10}, {1, 0}},  {{1040, 60}, {3, 90}}};
  EXPECT_EQ(map.find({1000, 100}), expected);
}

TEST(BlockMap, KeepsAChangeThatIsLaterThanTheGenerationThatWasWritten) {
  BlockMap map(2048);
  map.set({0, 1}, {1, 0}, ignore);
  map.set({1024, 1}, {1, 1}, ignore);
  const uint32_t written = map.end_generation();
  map.set({0, 1}, {2, 0}, ignore);
  map.clear_changed(0, written);
  map.clear_changed(1, written);
  EXPECT_TRUE(map.changed(0));
  EXPECT_FALSE(map.changed(1));
  map.clear_changed(0, map.end_generation());
  EXPECT_FALSE(map.changed(0));
}

TEST(BlockMap, TellsOfALeafBeforeItChanges) {
  BlockMap map(3072);
  map.set({0, 1}, {1, 0}, ignore);
  std::vector<uint64_t> told;
  std::vector<std::byte> before;
  map.watch([&](uint64_t leaf) {
    told.push_back(leaf);
    before = map.encode_leaf(0);
  });
  map.set({2048, 1}, {}, ignore);  // changes nothing
  map.set({0, 1025}, {2, 0}, ignore);
  EXPECT_EQ(told, (std::vector<uint64_t>{0, 1}));
  map.watch({});
  map.set({0, 3072}, {}, ignore);
  EXPECT_EQ(told.size(), 2U);
  EXPECT_EQ(before, list_of({{.first = 0, .count = 1024, .slot = 2, .position = 0}}));
}

TEST(BlockMap, IsDecodedAsItWasEncoded) {
  BlockMap map(1024);
  BlockMap copy(1024);
  for (const uint32_t extents : {0U, 1U, 100U, 682U, 683U, 1024U}) {
    fragment(map, extents);
    ASSERT_TRUE(copy.decode_leaf(0, map.encode_leaf(0)));
    EXPECT_FALSE(copy.changed(0));
    EXPECT_EQ(copy.find({0, 1024}), map.find({0, 1024}));
    EXPECT_EQ(copy.encode_leaf(0), map.encode_leaf(0));
  }
  ASSERT_TRUE(copy.decode_leaf(0, {}));
  BlockMap empty(1024);
  EXPECT_EQ(copy.memory(), empty_memory(empty));
}

TEST(BlockMap, RefusesAListThatNoLeafHas) {
  BlockMap map(1024 + 100);
  map.set({0, 5}, {3, 7}, ignore);
  const auto before = map.encode_leaf(0);
  const RawExtent good{.first = 0, .count = 5, .slot = 3, .position = 7};
  const auto with = [](auto change) {
    RawExtent extent{.first = 10, .count = 5, .slot = 3, .position = 7};
    change(extent);
    return extent;
  };
  EXPECT_EQ(refusal(map, 0, std::vector<std::byte>(13)),
            "map leaf 0 has 13 bytes, which no leaf has");
  EXPECT_EQ(refusal(map, 0, std::vector<std::byte>(12 * 683)),
            "map leaf 0 has 8196 bytes, which no leaf has");
  EXPECT_EQ(refusal(map, 0, list_of({good, with([](RawExtent& e) { e.count = 0; })})),
            "map leaf 0 has an extent of 0 blocks at 10, after 5 and of 1024 blocks");
  EXPECT_EQ(refusal(map, 0, list_of({good, with([](RawExtent& e) { e.first = 4; })})),
            "map leaf 0 has an extent of 5 blocks at 4, after 5 and of 1024 blocks");
  EXPECT_EQ(refusal(map, 0, list_of({good, with([](RawExtent& e) { e.count = 1015; })})),
            "map leaf 0 has an extent of 1015 blocks at 10, after 5 and of 1024 blocks");
  EXPECT_EQ(refusal(map, 1, list_of({with([](RawExtent& e) { e.count = 91; })})),
            "map leaf 1 has an extent of 91 blocks at 10, after 0 and of 100 blocks");
  EXPECT_EQ(refusal(map, 0, list_of({with([](RawExtent& e) { e.slot = 0; })})),
            "map leaf 0 maps block 10 to position 7 of slot 0, which is no place");
  EXPECT_EQ(refusal(map, 0, list_of({with([](RawExtent& e) { e.position = UINT32_MAX - 3; })})),
            "map leaf 0 maps block 10 to position 4294967292 of slot 3, which is no place");
  const RawExtent rest{.first = 5, .count = 5, .slot = 3, .position = 12};
  EXPECT_EQ(refusal(map, 0, list_of({good, rest})),
            "map leaf 0 has two extents for one run at block 5");
  EXPECT_EQ(map.encode_leaf(0), before);
  EXPECT_TRUE(map.changed(0));
}

TEST(BlockMap, RefusesAnArrayThatNoLeafHas) {
  struct Raw {
    Le32 slot;
    Le32 position;
  };
  BlockMap map(1024);
  std::vector<std::byte> flat;
  for (uint32_t i = 0; i < 1000; ++i) {
    flat = concat({flat, wire_bytes(Raw{.slot = 1 + i % 2, .position = i})});
  }
  flat.resize(kFlatBytes);
  BlockMap shorter(999);
  EXPECT_EQ(refusal(shorter, 0, flat), "map leaf 0 maps block 999 of 999");
  EXPECT_EQ(refusal(map, 0, flat), "accepted");
  auto stray = flat;
  stray.back() = std::byte{1};
  EXPECT_EQ(refusal(map, 0, stray), "map leaf 0 gives block 1023 a position in no object");
  EXPECT_EQ(refusal(map, 0, std::vector<std::byte>(kFlatBytes)),
            "map leaf 0 is an array, although it has only 0 runs");
}

/// Random operations on a small and on a fragmented map.
class BlockMapAgainstArray : public ::testing::TestWithParam<uint64_t> {};

TEST_P(BlockMapAgainstArray, AgreesAfterRandomOperations) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  SeededRng rng(GetParam());
  const uint64_t blocks = rng.between(1, 3000);
  // Few slots and positions, so that runs meet; few or many blocks at once, for both forms.
  const uint64_t most = GetParam() % 2 == 0 ? 4 : 1500;
  BlockMap map(blocks);
  Model model(blocks);
  std::map<uint32_t, uint64_t> replaced;
  const auto count = [&replaced](uint32_t slot, uint32_t number) { replaced[slot] += number; };
  const auto some_range = [&rng, blocks, most] {
    const uint64_t first = rng.below(blocks);
    return BlockRange(first, rng.between(1, std::min(most, blocks - first)));
  };
  const uint64_t empty = empty_memory(map);
  for (int i = 0; i < 4000; ++i) {
    const BlockRange range = some_range();
    // Often where it would be in a sequential write: neighbours continue each other.
    const auto base = static_cast<uint32_t>(rng.one_in(3) ? rng.below(4) : range.first);
    const Location location{static_cast<uint32_t>(rng.below(4)), base};
    if (location.slot != 0 && rng.one_in(4)) {
      const Location to{static_cast<uint32_t>(rng.below(6)), base + 1};
      ASSERT_EQ(map.move(range, location, to, count), model.move(range, location, to));
    } else {
      map.set(range, location, count);
      model.set(range, location);
    }
    const BlockRange looked = some_range();
    ASSERT_EQ(map.find(looked), model.find(looked));
    if (i % 50 == 0) {
      BlockMap copy(blocks);
      for (uint64_t leaf = 0; leaf < map.leaves(); ++leaf) {
        ASSERT_TRUE(copy.decode_leaf(leaf, map.encode_leaf(leaf)));
        if (rng.one_in(2)) map.clear_changed(leaf);
      }
      ASSERT_EQ(copy.find({0, blocks}), model.find({0, blocks}));
      ASSERT_EQ(map.find({0, blocks}), model.find({0, blocks}));
    }
  }
  ASSERT_EQ(replaced, model.replaced);
  map.set({0, blocks}, {}, ignore);
  for (uint64_t leaf = 0; leaf < map.leaves(); ++leaf) map.clear_changed(leaf);
  EXPECT_EQ(map.memory(), empty);
}

INSTANTIATE_TEST_SUITE_P(Seeds, BlockMapAgainstArray, ::testing::Range<uint64_t>(1, 31));

}  // namespace
}  // namespace usbd::objstore
