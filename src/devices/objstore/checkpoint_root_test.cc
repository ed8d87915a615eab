// SPDX-License-Identifier: Apache-2.0
//
// Roots and pages of the map: each field changed to what cannot be is refused, by name.

#include "devices/objstore/checkpoint_root.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/endian.h"
#include "base/limits.h"

namespace usbd::objstore {
namespace {

PiecePointer piece(uint64_t id, uint32_t number) {
  return {.object = {.epoch = 1, .id = id},
          .offset = 96 + number * 200,
          .stored = 200,
          .logical = 300,
          .number = number};
}

/// Two objects, three pages of the map, one of the table, two snapshots and a parent.
CheckpointRoot sample() {
  CheckpointRoot root{.number = 7, .blocks = 100'000, .last_seq = 50, .last_write = 600};
  root.objects = {{.id = {.epoch = 1, .id = 3}, .salt = {}, .pages = 5, .live = 3},
                  {.id = {.epoch = 1, .id = 9}, .salt = {}, .pages = 1, .live = 1}};
  root.map_pages = {{0, piece(3, 0)}, {1, piece(9, 0)}, {3, piece(3, 1)}};
  root.table_pages = {{2, piece(3, 4)}};
  root.snapshots = {{.number = 1,
                     .root = piece(1, 5),
                     .last_seq = 5,
                     .last_write = 60,
                     .last_moved = 2,
                     .time = 1'700'000'000'000'000'000,
                     .name = "monday"},
                    {.number = 4, .root = piece(2, 0), .last_seq = 50, .last_write = 600}};
  root.parent = ParentRef{.volume = {}, .root = piece(77, 1)};
  root.head.assign(10, std::byte{'h'});
  return root;
}

constexpr size_t kHead = 72;
constexpr size_t kObjects = kHead;
constexpr size_t kMapPages = kObjects + 2 * 56;
constexpr size_t kTablePages = kMapPages + 3 * 24;
constexpr size_t kSnapshots = kTablePages + 24;
constexpr size_t kSecond = kSnapshots + 128;
constexpr size_t kParent = kSnapshots + 2 * 128;

template <typename T>
std::string refusal(size_t offset, T value) {
  std::vector<std::byte> bytes = *encode_root(sample());
  const Le<T> field(value);
  std::memcpy(bytes.data() + offset, &field, sizeof(field));
  const auto root = decode_root(bytes);
  return root ? "accepted" : root.error().message();
}

const std::string kRoot = "the root of the checkpoint ";
const std::string kInvalid = ": Invalid argument";

TEST(CheckpointRoot, IsReadAsItWasWritten) {
  const std::vector<std::byte> bytes = *encode_root(sample());
  EXPECT_EQ(bytes.size(), kParent + 48 + 10);
  EXPECT_EQ(*decode_root(bytes), sample());
  CheckpointRoot least{.number = 1, .blocks = 1};
  EXPECT_EQ(*decode_root(*encode_root(least)), least);
}

TEST(CheckpointRoot, CountsWhatIsLive) {
  CheckpointRoot root = sample();
  root.map_pages.erase(root.map_pages.begin() + 1);
  const std::vector<MapObjectId> dead = recount(root);
  EXPECT_EQ(dead, (std::vector<MapObjectId>{{.epoch = 1, .id = 9}}));
  ASSERT_EQ(root.objects.size(), 1U);
  EXPECT_EQ(root.objects[0].live, 3U);
}

TEST(CheckpointRoot, RefusesWhatNoRootSays) {
  EXPECT_EQ(decode_root(std::vector<std::byte>(71)).error().context(), kRoot + "has only 71 bytes");
  EXPECT_EQ(refusal<uint16_t>(0, 2),
            kRoot + "has version 2; this version of usbd reads 1: Operation not supported");
  const std::string units = kRoot + "counts in other units: Operation not supported";
  EXPECT_EQ(refusal<uint16_t>(2, 16), units);
  EXPECT_EQ(refusal<uint32_t>(4, 512), units);
  EXPECT_EQ(refusal<uint32_t>(8, 512), units);
  EXPECT_EQ(refusal<uint32_t>(12, 1), units);
  EXPECT_EQ(refusal<uint64_t>(16, 0), kRoot + "has number 0 and 100000 blocks" + kInvalid);
  EXPECT_EQ(refusal<uint64_t>(24, 0), kRoot + "has number 7 and 0 blocks" + kInvalid);
  EXPECT_EQ(refusal<uint64_t>(24, (uint64_t{1} << 51U) + 1),
            kRoot + "has number 7 and 2251799813685249 blocks" + kInvalid);
  const std::string size = kRoot + "has 594 bytes, and lists what takes ";
  EXPECT_EQ(refusal<uint32_t>(48, 4), size + "618" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(56, UINT32_MAX), size + "240518169002" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(60, limits::kSnapshotsMax + 1), size + "524754" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(64, 2), size + "642" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(68, limits::kHeadCopyMax + 1), size + "66121" + kInvalid);
}

TEST(CheckpointRoot, RefusesNamesOfSnapshotsThatCannotBe) {
  const std::string first = kRoot + "says that the name of snapshot 1 ";
  const std::string second = kRoot + "says that the name of snapshot 4 ";
  EXPECT_EQ(refusal<uint8_t>(kSnapshots + 72, '\n'), first + "has control characters" + kInvalid);
  EXPECT_EQ(refusal<uint8_t>(kSnapshots + 72 + 7, 'x'),
            first + "has bytes behind its end" + kInvalid);
  EXPECT_EQ(refusal<uint8_t>(kSecond + 127, 'x'), second + "has bytes behind its end" + kInvalid);
  EXPECT_EQ(check_snapshot_name(std::string(kSnapshotNameMax, 'x')), "");
  EXPECT_EQ(check_snapshot_name(std::string(kSnapshotNameMax + 1, 'x')),
            "has 57 bytes, of at most 56");
}

TEST(CheckpointRoot, RefusesListsThatAreNotInOrder) {
  EXPECT_EQ(refusal<uint64_t>(kObjects + 56 + 8, 3), kRoot + "lists m/1/3 out of order" + kInvalid);
  const std::string order = " out of order, or in object ";
  EXPECT_EQ(refusal<uint32_t>(kMapPages + 24, 0),
            kRoot + "lists page 0 of 4" + order + "1 of 2" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(kMapPages + 48, 4),
            kRoot + "lists page 4 of 4" + order + "0 of 2" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(kTablePages, 16384),
            kRoot + "lists page 16384 of 16384" + order + "0 of 2" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(kTablePages + 4, 2),
            kRoot + "lists page 2 of 16384" + order + "2 of 2" + kInvalid);
  EXPECT_EQ(refusal<uint64_t>(kSnapshots, 0), kRoot + "lists snapshot 0 out of order" + kInvalid);
  EXPECT_EQ(refusal<uint64_t>(kSecond, 1), kRoot + "lists snapshot 1 out of order" + kInvalid);
  EXPECT_EQ(refusal<uint64_t>(kSecond, 7), kRoot + "lists snapshot 7 out of order" + kInvalid);
  const std::string second = kRoot + "lists snapshot 4 out of order" + kInvalid;
  EXPECT_EQ(refusal<uint64_t>(kSecond + 16, 1), second);
  EXPECT_EQ(refusal<uint64_t>(kSecond + 40, 4), second);
  EXPECT_EQ(refusal<uint64_t>(kSecond + 40, 51), second);
  EXPECT_EQ(refusal<uint64_t>(kSecond + 48, 59), second);
  EXPECT_EQ(refusal<uint64_t>(kSecond + 48, 601), second);
}

TEST(CheckpointRoot, RefusesPlacesWhereNothingCanBe) {
  EXPECT_EQ(refusal<uint32_t>(kMapPages + 8, 3),
            kRoot +
                "points at nothing for page 0: no piece can have 300 bytes, 200 of them stored "
                "at 3 of m/1/3" +
                kInvalid);
  const std::string nothing = "no piece can have 300 bytes, 0 of them stored at ";
  EXPECT_EQ(refusal<uint32_t>(kSnapshots + 8 + 20, 0), nothing + "1096 of m/1/1" + kInvalid);
  EXPECT_EQ(refusal<uint32_t>(kParent + 16 + 20, 0), nothing + "296 of m/1/4d" + kInvalid);
}

TEST(CheckpointRoot, RefusesCountsThatAreNotThoseOfItsPages) {
  const std::string counts = kRoot + "counts other pages in its objects than it lists" + kInvalid;
  EXPECT_EQ(refusal<uint32_t>(kObjects + 52, 2), counts);
  EXPECT_EQ(refusal<uint32_t>(kMapPages + 24 + 4, 0), counts);  // nothing is in the other object
  EXPECT_EQ(refusal<uint32_t>(kObjects + 48, 2),
            kRoot + "counts 3 live pages of 2 in m/1/3" + kInvalid);
}

TEST(MapPage, IsReadAsItWasWritten) {
  BlockMap map(33 * kLeafBlocks);
  const auto ignore = [](uint32_t, uint32_t) {};
  map.set({1000, 100}, {1, 0}, ignore);
  map.set({32 * kLeafBlocks, 1}, {2, 5}, ignore);
  BlockMap copy(33 * kLeafBlocks);
  ASSERT_EQ(map_pages(map), 2U);
  for (const uint32_t page : {0U, 1U}) {
    const auto encoded = encode_map_page(map, page);
    EXPECT_EQ(encoded.size(), page == 0 ? 64U + 24U : 64U + 12U);
    ASSERT_TRUE(decode_map_page(copy, page, encoded));
    EXPECT_EQ(encode_map_page(copy, page), encoded);
  }
  map.set({0, 33 * kLeafBlocks}, {}, ignore);
  EXPECT_TRUE(encode_map_page(map, 0).empty());
}

TEST(MapPage, RefusesWhatNoPageIs) {
  BlockMap map(33 * kLeafBlocks);
  const auto ignore = [](uint32_t, uint32_t) {};
  map.set({0, 1}, {1, 0}, ignore);
  const auto good = encode_map_page(map, 0);
  const auto refused = [&map](uint32_t page, Bytes encoded) {
    const auto result = decode_map_page(map, page, encoded);
    return result ? "accepted" : result.error().context();
  };
  EXPECT_EQ(refused(0, good), "accepted");
  EXPECT_EQ(refused(0, Bytes(good).first(64)), "map page 0 has only 64 bytes");
  EXPECT_EQ(refused(0, Bytes(good).first(70)),
            "map page 0 says that leaf 0 has 12 bytes, of 6 left");
  auto bad = good;
  bad.push_back(std::byte{0});
  EXPECT_EQ(refused(0, bad), "map page 0 has 1 bytes behind its leaves");
  bad = good;
  bad[72] = std::byte{1};  // the position
  bad[68] = std::byte{0};  // the slot
  EXPECT_EQ(refused(0, bad), "map leaf 0 maps block 0 to position 1 of slot 0, which is no place");
  bad = good;
  std::swap(bad[0], bad[2]);  // the second leaf of a page that has one
  EXPECT_EQ(refused(1, bad), "map page 1 says that leaf 33 has 12 bytes, of 12 left");
}

}  // namespace
}  // namespace usbd::objstore
