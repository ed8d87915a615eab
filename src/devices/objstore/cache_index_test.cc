// SPDX-License-Identifier: Apache-2.0
//
// The index of a kept cache, read and refused; and the worked example of docs/formats/cache.md,
// compared with what the code writes.

#include "devices/objstore/cache_index.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "devices/objstore/block_cache.h"
#include "devices/objstore/memory_folder_testing.h"

namespace usbd::objstore {
namespace {

using ::testing::HasSubstr;
using ByteVector = std::vector<std::byte>;

struct Index {
  CacheIndexHeader header;
  std::vector<CacheSalt> salts;
  std::vector<ObjectId> objects;
  std::vector<CacheEntry> entries;
};

Index some_index() {
  Index index;
  index.header.volume.fill(std::byte{0x11});
  index.header.stamp.fill(std::byte{0x22});
  index.header.cipher = crypto::CipherMode::kAesGcm;
  for (unsigned i = 0; i < 3; ++i) {
    index.salts.emplace_back().fill(static_cast<std::byte>(0x50 + i));
    index.objects.push_back({.epoch = 2, .seq = 7 + i, .kind = ObjectKind::kData});
  }
  index.objects.back().kind = ObjectKind::kGc;
  for (uint32_t i = 0; i < 10; ++i) {
    CacheEntry& entry = index.entries.emplace_back();
    entry = {.place = i * 2, .object = i % 3, .position = 100 + i, .session = i % 3, .number = i};
    entry.tag.fill(static_cast<std::byte>(i));
  }
  return index;
}

ByteVector encoded(const Index& index) {
  ByteVector body;
  for (const CacheSalt& salt : index.salts) append(body, salt);
  for (const ObjectId& id : index.objects) append(body, id);
  for (const CacheEntry& entry : index.entries) append(body, entry);
  CacheIndexHeader header = index.header;
  header.sessions = static_cast<uint32_t>(index.salts.size());
  header.objects = static_cast<uint32_t>(index.objects.size());
  header.entries = static_cast<uint32_t>(index.entries.size());
  header.body_crc = crc32c(body);
  const auto start = encode(header);
  ByteVector bytes(start.size() + body.size());
  std::ranges::copy(start, bytes.begin());
  std::ranges::copy(body, bytes.begin() + static_cast<ptrdiff_t>(start.size()));
  return bytes;
}

/// All of it, given in pieces of this size.
Result<Index> decoded(Bytes bytes, uint64_t places, size_t piece = 100) {
  Index index;
  USBD_TRY(index.header, decode_cache_header(bytes, bytes.size()));
  CacheIndexDecoder decoder(index.header, places);
  for (Bytes rest = bytes.subspan(kCacheHeaderBytes); !rest.empty();) {
    const size_t size = std::min(piece, rest.size());
    USBD_TRY_VOID(decoder.feed(rest.first(size)));
    for (const CacheEntry& entry : decoder.take_entries()) index.entries.push_back(entry);
    rest = rest.subspan(size);
  }
  USBD_TRY_VOID(decoder.finish());
  index.salts = decoder.salts();
  index.objects = decoder.objects();
  return index;
}

std::string refused(Bytes bytes, uint64_t places = 20) {
  const Result<Index> index = decoded(bytes, places);
  return index ? "it was accepted" : index.error().message();
}

TEST(CacheIndex, IsReadAsItWasWritten) {
  const Index index = some_index();
  const ByteVector bytes = encoded(index);
  for (const size_t piece : {1U, 7U, 40U, 100U, 100'000U}) {
    const Result<Index> read = decoded(bytes, 20, piece);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->header.volume, index.header.volume);
    EXPECT_EQ(read->header.stamp, index.header.stamp);
    EXPECT_EQ(read->header.cipher, index.header.cipher);
    EXPECT_EQ(read->salts, index.salts);
    EXPECT_EQ(read->objects, index.objects);
    EXPECT_EQ(read->entries, index.entries);
  }
}

TEST(CacheIndex, NoChangedByteIsAccepted) {
  const ByteVector good = encoded(some_index());
  for (size_t at = 0; at < good.size(); ++at) {
    ByteVector bytes = good;
    bytes[at] ^= std::byte{0x10};
    EXPECT_NE(refused(bytes), "it was accepted") << at;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(refused(Bytes(good).first(size)), "it was accepted") << size;
  }
}

TEST(CacheIndex, SaysWhatIsWrong) {
  const ByteVector good = encoded(some_index());
  EXPECT_THAT(refused(Bytes(good).first(50)), HasSubstr("cut short"));
  ByteVector bytes = good;
  bytes[0] = std::byte{'x'};
  EXPECT_THAT(refused(bytes), HasSubstr("does not begin"));
  bytes = good;
  bytes[8] = std::byte{2};
  EXPECT_THAT(refused(bytes), HasSubstr("version 2"));
  bytes = good;
  bytes[20] ^= std::byte{1};
  EXPECT_THAT(refused(bytes), HasSubstr("checksum of its header"));
  bytes = good;
  bytes.back() ^= std::byte{1};
  EXPECT_THAT(refused(bytes), HasSubstr("checksum of its entries"));
  bytes = good;
  bytes.push_back({});
  EXPECT_THAT(refused(bytes), HasSubstr("not as long"));
  EXPECT_THAT(refused(good, 5), HasSubstr("about nothing"));
}

TEST(CacheIndex, RefusesEntriesOfNothing) {
  const auto refused_entry = [](auto change) {
    Index index = some_index();
    change(index.entries[3]);
    return refused(encoded(index));
  };
  EXPECT_THAT(refused_entry([](CacheEntry& e) { e.place = 20; }), HasSubstr("about nothing"));
  EXPECT_THAT(refused_entry([](CacheEntry& e) { e.object = 3; }), HasSubstr("about nothing"));
  EXPECT_THAT(refused_entry([](CacheEntry& e) { e.session = 3; }), HasSubstr("about nothing"));
  EXPECT_THAT(refused_entry([](CacheEntry& e) { e.number = kCacheNumberEnd; }),
              HasSubstr("about nothing"));
  EXPECT_THAT(refused_entry([](CacheEntry& e) { e.position = limits::kObjectBlocksMax; }),
              HasSubstr("about nothing"));
  Index index = some_index();
  index.objects[1].kind = static_cast<ObjectKind>(9);
  EXPECT_THAT(refused(encoded(index)), HasSubstr("no known kind"));
  index = some_index();
  index.salts.resize(limits::kCacheSessionsMax + 1);
  EXPECT_THAT(refused(encoded(index)), HasSubstr("not as long"));
  index = some_index();
  index.objects.resize(11);
  EXPECT_NE(refused(encoded(index)), "it was accepted");
}

TEST(CacheIndex, ThatNamesABlockTwiceIsNotUsed) {
  MemoryDisk disk;
  MemoryFolder folder(disk);
  SimLoop loop(SimLoop::Options{});
  SeededRng rng(1);
  Index index = some_index();
  index.header.cipher = crypto::CipherMode::kIdentity;
  BlockCache::Options options{.volume = index.header.volume,
                              .blocks_max = 100,
                              .persist = true,
                              .found = index.header.stamp};
  for (const bool same_place : {true, false}) {
    Index twice = index;
    CacheEntry again = twice.entries[4];
    (same_place ? again.position : again.place) = 3;
    twice.entries.push_back(again);
    disk.files["cache.index"] = std::make_shared<ByteVector>(encoded(twice));
    disk.files["cache.blocks"] = std::make_shared<ByteVector>(20 * kBlockBytes);
    const std::unique_ptr<BlockCache> cache = *loop.run(BlockCache::open(folder, rng, options));
    EXPECT_EQ(cache->stats().blocks, 0U);
    loop.spawn(cache->close(std::nullopt));
    loop.run_until_idle();
  }
}

// --- the example

class SameBytes final : public Rng {
 public:
  uint64_t next() override { return 0x5a5a5a5a5a5a5a5a; }
  void fill(MutableBytes data) override { std::ranges::fill(data, std::byte{0x5a}); }
};

std::string dump(Bytes bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    std::string shown;
    text += fmt::format("{:06x} ", at);
    for (const std::byte byte : bytes.subspan(at, std::min<size_t>(16, bytes.size() - at))) {
      const auto value = std::to_integer<unsigned char>(byte);
      text += fmt::format(" {:02x}", value);
      shown += std::isprint(value) != 0 ? static_cast<char>(value) : '.';
    }
    text += "  " + shown + "\n";
  }
  return text;
}

/// The fenced block behind the line `<!-- dump: NAME -->`.
std::string documented(const std::string& name) {
  const auto here = std::filesystem::path(__FILE__).parent_path();
  std::ifstream file(here.parent_path().parent_path().parent_path() / "docs/formats/cache.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string fence = "```\n";
  size_t start = text.find("<!-- dump: " + name + " -->");
  start = start == std::string::npos ? start : text.find(fence, start);
  if (start == std::string::npos) return "no dump of " + name;
  start += fence.size();
  return text.substr(start, text.find(fence, start) - start);
}

TEST(CacheDocument, ShowsWhatTheCodeWrites) {
  MemoryDisk disk;
  MemoryFolder folder(disk);
  SimLoop loop(SimLoop::Options{});
  SameBytes rng;
  BlockCache::Options options{.blocks_max = 100, .persist = true};
  options.volume.fill(std::byte{0x11});
  CacheStamp left;
  left.fill(std::byte{0x22});
  const std::unique_ptr<BlockCache> cache = *loop.run(BlockCache::open(folder, rng, options));
  cache->add({.epoch = 2, .seq = 42}, 5, ByteVector(2 * kBlockBytes, std::byte{'A'}));
  loop.spawn(cache->close(left));
  loop.run_until_idle();
  EXPECT_EQ(documented("index"), dump(disk.bytes("cache.index")));
}

}  // namespace
}  // namespace usbd::objstore
