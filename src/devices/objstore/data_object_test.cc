// SPDX-License-Identifier: Apache-2.0
//
// Whole objects: what is written is read, with every cipher and codec, and how much that takes.
// What happens to objects that somebody has touched is in data_object_damage_test.cc.

#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "base/random.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/data_object_testing.h"
#include "devices/objstore/data_object_writer.h"

namespace usbd::objstore {
namespace {

using codec::CodecKind;
using crypto::CipherMode;

constexpr CipherMode kCiphers[] = {CipherMode::kIdentity,         CipherMode::kAesGcm,
                                   CipherMode::kChaCha20Poly1305, CipherMode::kAesCtr,
                                   CipherMode::kAesCfb,           CipherMode::kAesOfb};
constexpr CodecKind kCodecs[] = {CodecKind::kIdentity, CodecKind::kLz4, CodecKind::kZstd,
                                 CodecKind::kS2, CodecKind::kGzip};

/// Blocks of all sorts: random ones, zeros, and some that compress a little.
ByteVector some_blocks(size_t blocks, uint64_t seed) {
  ByteVector data(blocks * kBlockBytes);
  SeededRng rng(seed);
  for (size_t i = 0; i < blocks; ++i) {
    const MutableBytes block = MutableBytes(data).subspan(i * kBlockBytes, kBlockBytes);
    const uint64_t random = rng.below(3) * (kBlockBytes / 2);
    rng.fill(block.first(random));
  }
  return data;
}

struct Setting {
  explicit Setting(CipherMode cipher = CipherMode::kAesGcm, CodecKind codec = CodecKind::kLz4,
                   ObjectKind kind = ObjectKind::kData) {
    seal = {.volume = {std::byte{9}}, .cipher = cipher, .key = key};
    facts = {.id = {.epoch = 3, .seq = 7, .kind = kind},
             .salt = {std::byte{5}},
             .codec = {.kind = codec},
             .first_write = 100,
             .last_write = 131};
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

  [[nodiscard]] DataObjectWriter writer() const { return *DataObjectWriter::create(seal, facts); }
  [[nodiscard]] Result<Contents> read(Bytes object) const {
    return read_object(seal, facts.id, object);
  }

  ByteVector key = ByteVector(32, std::byte{1});
  VolumeSeal seal;
  DataObjectWriter::Facts facts;
};

class DataObjectTest : public testing::TestWithParam<std::tuple<CipherMode, CodecKind>> {};
INSTANTIATE_TEST_SUITE_P(All, DataObjectTest,
                         testing::Combine(testing::ValuesIn(kCiphers), testing::ValuesIn(kCodecs)));

TEST_P(DataObjectTest, GivesBackWhatWasWritten) {
  const auto [cipher, codec] = GetParam();
  for (const size_t blocks : {1U, 15U, 16U, 17U, 100U}) {
    const Setting setting(cipher, codec);
    DataObjectWriter writer = setting.writer();
    const ByteVector data = some_blocks(blocks, blocks);
    writer.add_empty(5, 10, ExtentKind::kTrim);
    EXPECT_EQ(writer.add_data(1000, Bytes(data).first(kBlockBytes)).value, 0U);
    writer.add_empty(1U << 30U, UINT32_MAX, ExtentKind::kZero);
    if (blocks > 1) {
      EXPECT_EQ(writer.add_data(50, Bytes(data).subspan(kBlockBytes)).value, 1U);
    }
    const std::vector<Extent> expected = writer.extent_list();
    const ByteVector object = writer.finish();
    const Result<Contents> read = setting.read(object);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->blocks, data);
    EXPECT_EQ(read->extents, expected);
    EXPECT_TRUE(read->sources.empty());
    EXPECT_EQ(*parse_header(object), read->header);
    EXPECT_LE(object.size(), DataObjectWriter::stored_max(ObjectKind::kData, cipher, 4, blocks));
  }
}

TEST_P(DataObjectTest, KeepsTheSourcesOfGarbageCollection) {
  const auto [cipher, codec] = GetParam();
  const Setting setting(cipher, codec, ObjectKind::kGc);
  DataObjectWriter writer = setting.writer();
  const ByteVector data = some_blocks(40, 1);
  const std::vector<Source> sources = {
      {.object = {.epoch = 1, .seq = 2, .kind = ObjectKind::kData}, .position = {33}},
      {},
      {.object = {.epoch = 2, .seq = 9, .kind = ObjectKind::kGc}, .position = {UINT32_MAX}}};
  writer.add_moved(7, Bytes(data).first(20 * kBlockBytes), sources[0]);
  writer.add_empty(3, 3, ExtentKind::kTrim);
  EXPECT_EQ(writer.add_moved(90, Bytes(data).subspan(20 * kBlockBytes), sources[2]).value, 20U);
  const Result<Contents> read = setting.read(writer.finish());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->sources, sources);
  EXPECT_EQ(read->blocks, data);
  EXPECT_EQ(read->header.id.kind, ObjectKind::kGc);
}

TEST_P(DataObjectTest, HoldsOnlyTrimsAndZerosOrNothing) {
  const auto [cipher, codec] = GetParam();
  for (const size_t extents : {0U, 1U, 1000U}) {
    const Setting setting(cipher, codec);
    DataObjectWriter writer = setting.writer();
    for (size_t i = 0; i < extents; ++i) {
      writer.add_empty(i, 1, i % 2 == 0 ? ExtentKind::kTrim : ExtentKind::kZero);
    }
    const Result<Contents> read = setting.read(writer.finish());
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->extents.size(), extents);
    EXPECT_TRUE(read->blocks.empty());
  }
}

TEST(DataObject, GivesBackRandomObjects) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SeededRng rng(seed);
    const Setting setting(kCiphers[rng.below(6)], kCodecs[rng.below(5)]);
    DataObjectWriter writer = setting.writer();
    ByteVector all;
    for (uint64_t n = rng.below(40); n > 0; --n) {
      const uint64_t block = rng.below(kBlockEnd - 100);
      if (rng.one_in(3)) {
        writer.add_empty(block, static_cast<uint32_t>(rng.between(1, 99)), ExtentKind::kTrim);
      } else {
        const ByteVector data = some_blocks(rng.between(1, 50), rng.next());
        writer.add_data(block, data);
        all.insert(all.end(), data.begin(), data.end());
      }
    }
    const std::vector<Extent> expected = writer.extent_list();
    const Result<Contents> read = setting.read(writer.finish());
    ASSERT_TRUE(read) << "seed " << seed << ": " << read.error().message();
    EXPECT_EQ(read->blocks, all) << "seed " << seed;
    EXPECT_EQ(read->extents, expected) << "seed " << seed;
  }
}

TEST(DataObject, MayBeLarge) {
  constexpr size_t kBlocks = (64U << 20) / kBlockBytes;
  const Setting setting;
  DataObjectWriter writer = setting.writer();
  const ByteVector data = some_blocks(kBlocks, 1);
  SeededRng rng(1);
  for (size_t i = 0; i < kBlocks; ++i) {
    writer.add_data(rng.below(1U << 28), Bytes(data).subspan(i * kBlockBytes, kBlockBytes));
  }
  EXPECT_EQ(writer.frames(), kBlocks / kFrameBlocks);
  const ByteVector object = writer.finish();
  EXPECT_LT(object.size(), data.size());
  const Result<Contents> read = setting.read(object);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->blocks, data);
}

TEST(DataObject, OfSequentialWritesHasItsDirectoryInOneTail) {
  const Setting setting;
  DataObjectWriter writer = setting.writer();
  const ByteVector data(1U << 20);
  for (int i = 0; i < 64; ++i) writer.add_data(static_cast<uint64_t>(i) * 256, data);
  const ByteVector object = writer.finish();
  const size_t size = std::min<size_t>(object.size(), limits::kObjectTailBytes);
  EXPECT_TRUE(parse_tail(setting.seal, setting.facts.id, Bytes(object).last(size), object.size())
                  ->directory.has_value());
}

TEST(DataObject, IsTheSameForTheSameSaltOnly) {
  Setting setting;
  const auto make = [&setting] {
    DataObjectWriter writer = setting.writer();
    writer.add_data(1, some_blocks(3, 1));
    return writer.finish();
  };
  const ByteVector first = make();
  EXPECT_EQ(make(), first);
  setting.facts.salt[31] = std::byte{1};
  const ByteVector second = make();
  EXPECT_EQ(first.size(), second.size());
  size_t equal = 0;
  const size_t sealed_end = first.size() - sizeof(layout::Footer);
  for (size_t i = sizeof(layout::Header); i < sealed_end; ++i) equal += first[i] == second[i];
  EXPECT_LT(equal, (sealed_end - sizeof(layout::Header)) / 100);  // 1 in 256 by chance
}

TEST(DataObject, IsTheSameHoweverItsDataComes) {
  const Setting setting;
  const ByteVector data = some_blocks(200, 2);
  DataObjectWriter one = setting.writer();
  DataObjectWriter other = setting.writer();
  other.expect(20, 200);
  for (uint64_t part = 0; part < 20; ++part) {
    const Bytes bytes = Bytes(data).subspan(part * 10 * kBlockBytes, 10 * kBlockBytes);
    const Position position = one.add_data(1 + part * 10, bytes);
    EXPECT_EQ(position, other.add_data(1 + part * 10, ByteVector(bytes.begin(), bytes.end())));
  }
  EXPECT_EQ(one.finish(), other.finish());
}

TEST(DataObject, SealsNoTwoFramesAlike) {
  const Setting setting(CipherMode::kAesCtr, CodecKind::kIdentity);
  DataObjectWriter writer = setting.writer();
  writer.add_data(0, ByteVector(32UL * kBlockBytes));
  const ByteVector object = writer.finish();
  std::set<ByteVector> blocks;  // of the cipher: all plain blocks are zeros
  for (size_t i = 0; i < 2 * kFrameBytes / 16; ++i) {
    const size_t tags = i * 16 < kFrameBytes ? 0 : 32;
    const auto start =
        object.begin() + static_cast<ptrdiff_t>(sizeof(layout::Header) + tags + i * 16);
    EXPECT_TRUE(blocks.emplace(start, start + 16).second);
  }
}

TEST(DataObject, AsksForWhatIsMissingOfItsDirectory) {
  const Setting setting(CipherMode::kAesGcm, CodecKind::kIdentity);
  DataObjectWriter writer = setting.writer();
  for (uint64_t i = 0; i < 10000; ++i) writer.add_empty(i * 2, 1, ExtentKind::kTrim);
  const ByteVector object = writer.finish();
  for (size_t size : {0UL, 1UL, sizeof(layout::Footer) - 1, sizeof(layout::Footer), 1000UL,
                      object.size() - 1, object.size()}) {
    int calls = 0;
    while (true) {
      ++calls;
      const auto tail =
          parse_tail(setting.seal, setting.facts.id, Bytes(object).last(size), object.size());
      ASSERT_TRUE(tail) << tail.error().message();
      if (tail->directory) break;
      EXPECT_EQ(tail->missing.end(), object.size());
      EXPECT_GT(tail->missing.length, size);
      size = tail->missing.length;
    }
    EXPECT_LE(calls, 3);
  }
}

TEST(DataObject, KnowsItsRoom) {
  const Setting setting;
  DataObjectWriter writer = setting.writer();
  EXPECT_TRUE(writer.has_room(limits::kObjectBlocksMax));
  EXPECT_FALSE(writer.has_room(limits::kObjectBlocksMax + 1));
  writer.add_data(0, ByteVector(kBlockBytes));
  EXPECT_FALSE(writer.has_room(limits::kObjectBlocksMax));
  for (uint32_t i = 1; i < limits::kObjectExtentsMax; ++i) {
    ASSERT_TRUE(writer.has_room(0));
    writer.add_empty(i, 1, ExtentKind::kTrim);
  }
  EXPECT_FALSE(writer.has_room(0));
  const Result<Contents> read = setting.read(writer.finish());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->extents.size(), limits::kObjectExtentsMax);
}

TEST(DataObject, SaysHowLargeItCanGet) {
  for (const CipherMode cipher : kCiphers) {
    const Setting setting(cipher, CodecKind::kIdentity);
    DataObjectWriter writer = setting.writer();
    writer.add_data(0, some_blocks(33, 1));
    writer.add_empty(0, 1, ExtentKind::kTrim);
    EXPECT_EQ(writer.finish().size(),
              DataObjectWriter::stored_max(ObjectKind::kData, cipher, 2, 33));
    EXPECT_GT(DataObjectWriter::memory_max(ObjectKind::kData, cipher, 2, 33),
              DataObjectWriter::stored_max(ObjectKind::kData, cipher, 2, 33) + 2 * kFrameBytes);
  }
}

TEST(DataObject, NeedsAKeyOfAKnownSize) {
  const Setting setting;
  const VolumeSeal seal{.cipher = CipherMode::kAesGcm, .key = Bytes(setting.key).first(20)};
  EXPECT_TRUE(DataObjectWriter::create(seal, setting.facts).error().is(Errc::kInvalid));
  EXPECT_TRUE(FrameOpener::create(seal, {}, {}).error().is(Errc::kInvalid));
}

TEST(DataObject, RecordsTheCodecOfEachFrame) {
  const Setting setting;
  DataObjectWriter writer = setting.writer();
  ByteVector random(kFrameBytes);
  SeededRng(1).fill(random);
  writer.add_data(0, random);
  writer.add_data(100, ByteVector(kFrameBytes));
  const ByteVector object = writer.finish();
  const auto tail = parse_tail(setting.seal, setting.facts.id, object, object.size());
  ASSERT_TRUE(tail);
  const auto& frames = tail->directory->frames();
  EXPECT_EQ(frames[0].codec, CodecKind::kIdentity);
  EXPECT_EQ(frames[1].codec, CodecKind::kLz4);
  EXPECT_LT(frames[1].stored, 1000U);
  EXPECT_EQ(tail->directory->first_write(), 100U);
  EXPECT_EQ(tail->directory->last_write(), 131U);
}

TEST(ObjectId, HasTheNameOfItsObject) {
  EXPECT_EQ(to_text(ObjectId{.epoch = 3, .seq = 41}), "d/3/41");
  EXPECT_EQ(to_text(ObjectId{.epoch = 3, .seq = 41, .kind = ObjectKind::kGc}), "g/3/41");
}

}  // namespace
}  // namespace usbd::objstore
