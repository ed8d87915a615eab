// SPDX-License-Identifier: Apache-2.0
//
// The journal's structures: there and back, every flipped bit, and every contradiction that a right
// checksum can carry.

#include "journal/format.h"

#include <cstring>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32c.h"

namespace usbd::journal {
namespace {

using ::testing::HasSubstr;
using Block = std::vector<std::byte>;

Id id_of(unsigned first) {
  Id id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<std::byte>(first + i);
  return id;
}

const Id kJournal = id_of(0x40);

Superblock sample_superblock() {
  return {.volume = id_of(1),
          .journal = kJournal,
          .generation = 9,
          .ring_bytes = 64 * kBlock,
          .epoch = 3,
          .session = 5,
          .tail = 7 * kBlock,
          .tail_jseq = 11,
          .durable_jseq = 17,
          .released_number = 19,
          .session_jseq = 8,
          .session_previous_crc = 0x87654321};
}

Block encoded(const Superblock& superblock) {
  Block block(kBlock, std::byte(0xee));
  encode(superblock, block);
  return block;
}

/// A header of `entries` entries, the first of them with `payload` blocks.
Header sample_header(uint32_t entries, uint32_t payload) {
  Header header{.kind = RecordKind::kData,
                .sealed = true,
                .salt = id_of(0x80),
                .epoch = 3,
                .session = 5,
                .jseq = 12,
                .durable_jseq = 11,
                .previous_crc = 0x12345678,
                .header_blocks = header_blocks_for(entries, payload),
                .entries = {},
                .seals = {},
                .tag = id_of(0xa0),
                .crc = 0};
  for (uint32_t i = 0; i < entries; ++i) {
    header.entries.push_back({.number = 100 + i,
                              .block = 1000 + i,
                              .blocks = i == 0 ? payload : 77,
                              .kind = static_cast<uint8_t>(1 + i % 3),
                              .has_payload = i == 0 && payload > 0});
  }
  for (uint32_t i = 0; i < payload; ++i) header.seals.push_back({.crc = i, .tag = id_of(i)});
  return header;
}

Block encoded(const Header& header) {
  Block blocks(header.header_blocks * kBlock, std::byte(0xee));
  encode_unsealed(header, kJournal, blocks);
  finish_header(header.tag, blocks);
  return blocks;
}

void expect_equal(const Header& found, const Header& expected) {
  EXPECT_EQ(found.kind, expected.kind);
  EXPECT_EQ(found.sealed, expected.sealed);
  EXPECT_EQ(found.salt, expected.salt);
  EXPECT_EQ(found.epoch, expected.epoch);
  EXPECT_EQ(found.session, expected.session);
  EXPECT_EQ(found.jseq, expected.jseq);
  EXPECT_EQ(found.durable_jseq, expected.durable_jseq);
  EXPECT_EQ(found.previous_crc, expected.previous_crc);
  EXPECT_EQ(found.header_blocks, expected.header_blocks);
  EXPECT_EQ(found.entries, expected.entries);
  EXPECT_EQ(found.tag, expected.tag);
  ASSERT_EQ(found.seals.size(), expected.seals.size());
  for (size_t i = 0; i < found.seals.size(); ++i) {
    EXPECT_EQ(found.seals[i].crc, expected.seals[i].crc);
    EXPECT_EQ(found.seals[i].tag, expected.seals[i].tag);
  }
}

/// A part of `block` at `at`, changed, as whoever can compute checksums would leave it.
template <WireStruct T>
void change(Block& block, size_t at, const std::function<void(T&)>& how) {
  T part = wire_read<T>(Bytes(block).subspan(at));
  how(part);
  std::memcpy(block.data() + at, &part, sizeof(part));
}

Result<Superblock> parse_changed(const std::function<void(DiskSuperblock&)>& how) {
  Block block = encoded(sample_superblock());
  change<DiskSuperblock>(block, 0, [&how](DiskSuperblock& disk) {
    how(disk);
    disk.crc = 0;
  });
  const uint32_t crc = crc32c(block);
  change<DiskSuperblock>(block, 0, [crc](DiskSuperblock& disk) { disk.crc = crc; });
  return parse_superblock(block);
}

std::string refusal(const Result<Header>& parsed) {
  EXPECT_FALSE(parsed.has_value());
  if (parsed) return "taken";
  EXPECT_TRUE(parsed.error().is(Errc::kNotFound));
  return parsed.error().context();
}

std::string refusal_of(const Header& header, const std::function<void(DiskHeader&)>& how) {
  Block blocks = encoded(header);
  change<DiskHeader>(blocks, 0, how);
  finish_header(header.tag, blocks);
  return refusal(parse_header(blocks, kJournal));
}

std::string refusal_with_entry(uint32_t index, const std::function<void(DiskEntry&)>& how) {
  const Header header = sample_header(3, 2);
  Block blocks = encoded(header);
  change<DiskEntry>(blocks, sizeof(DiskHeader) + index * sizeof(DiskEntry), how);
  finish_header(header.tag, blocks);
  return refusal(parse_header(blocks, kJournal));
}

TEST(JournalId, IsShownAsHexadecimalDigits) {
  EXPECT_EQ(to_hex(id_of(0x0a)), "0a0b0c0d0e0f10111213141516171819");
}

TEST(JournalSuperblock, ComesBackAsItWas) {
  const Result<Superblock> found = parse_superblock(encoded(sample_superblock()));
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_EQ(*found, sample_superblock());
}

TEST(JournalSuperblock, IsRefusedWithAnyBitFlipped) {
  Block block = encoded(sample_superblock());
  for (size_t bit = 0; bit < kBlock * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    block[bit / 8] ^= mask;
    const Result<Superblock> found = parse_superblock(block);
    ASSERT_FALSE(found.has_value()) << "bit " << bit;
    ASSERT_TRUE(found.error().is(Errc::kNotFound)) << "bit " << bit;
    block[bit / 8] ^= mask;
  }
}

TEST(JournalSuperblock, OfALaterVersionIsNamedAsSuch) {
  const auto found = parse_changed([](DiskSuperblock& disk) { disk.version = 2; });
  ASSERT_FALSE(found.has_value());
  EXPECT_TRUE(found.error().is(Errc::kNotSupported));
  EXPECT_THAT(found.error().message(), HasSubstr("version 2"));
}

TEST(JournalSuperblock, IsRefusedIfItContradictsItself) {
  using Change = std::function<void(DiskSuperblock&)>;
  const std::vector<std::pair<const char*, Change>> changes = {
      {"odd ring", [](DiskSuperblock& disk) { disk.ring_bytes = 64 * kBlock + 1; }},
      {"odd tail", [](DiskSuperblock& disk) { disk.tail = 512; }},
      {"small ring", [](DiskSuperblock& disk) { disk.ring_bytes = kRingBytesMin - kBlock; }},
      {"no ring", [](DiskSuperblock& disk) { disk.ring_bytes = 0; }},
      {"tail outside", [](DiskSuperblock& disk) { disk.tail = 64 * kBlock; }},
      {"tail without number", [](DiskSuperblock& disk) { disk.tail_jseq = 0; }},
      {"session without number", [](DiskSuperblock& disk) { disk.session_jseq = 0; }},
      {"session behind what is not durable", [](DiskSuperblock& disk) { disk.session_jseq = 19; }},
      {"reserved bytes", [](DiskSuperblock& disk) { disk.reserved = 1; }}};
  for (const auto& [what, how] : changes) {
    const Result<Superblock> found = parse_changed(how);
    ASSERT_FALSE(found.has_value()) << what;
    EXPECT_THAT(found.error().message(), HasSubstr("contradicts")) << what;
  }
}

TEST(JournalSuperblock, IsRefusedWithBytesBehindItsEnd) {
  Block block = encoded(sample_superblock());
  block.back() = std::byte(1);
  change<DiskSuperblock>(block, 0, [](DiskSuperblock& disk) { disk.crc = 0; });
  const uint32_t crc = crc32c(block);
  change<DiskSuperblock>(block, 0, [crc](DiskSuperblock& disk) { disk.crc = crc; });
  EXPECT_THAT(parse_superblock(block).error().message(), HasSubstr("contradicts"));
}

TEST(JournalHeader, ComesBackAsItWas) {
  for (const auto& [entries, payload] : {std::pair(1U, 0U),
                                         {1U, 1U},
                                         {3U, 2U},
                                         {kEntriesMax, 0U},
                                         {kEntriesMax, 100U},
                                         {1U, kPayloadBlocksMax},
                                         {kEntriesMax, kPayloadBlocksMax}}) {
    const Header header = sample_header(entries, payload);
    const Result<Header> found = parse_header(encoded(header), kJournal);
    ASSERT_TRUE(found.has_value()) << entries << " and " << payload;
    expect_equal(*found, header);
    EXPECT_EQ(found->bytes(), (header.header_blocks + payload) * kBlock);
  }
}

TEST(JournalHeader, OfAWrapOrAMarkHasNoEntries) {
  for (const RecordKind kind : {RecordKind::kWrap, RecordKind::kMark}) {
    Header header = sample_header(0, 0);
    header.kind = kind;
    const Result<Header> found = parse_header(encoded(header), kJournal);
    ASSERT_TRUE(found.has_value());
    expect_equal(*found, header);
  }
}

TEST(JournalHeader, TakesOneToThreeBlocks) {
  EXPECT_EQ(header_blocks_for(0, 0), 1U);
  EXPECT_EQ(header_blocks_for(1, 197), 1U);
  EXPECT_EQ(header_blocks_for(1, 198), 2U);
  EXPECT_EQ(header_blocks_for(kEntriesMax, kPayloadBlocksMax), 3U);
}

TEST(JournalHeader, ReturnsTheChecksumThatItStores) {
  const Header header = sample_header(3, 2);
  Block blocks(kBlock);
  encode_unsealed(header, kJournal, blocks);
  const uint32_t crc = finish_header(header.tag, blocks);
  EXPECT_EQ(parse_header(blocks, kJournal)->crc, crc);
}

TEST(JournalHeader, IsWithoutItsSealWhatTheSealAuthenticates) {
  const Header header = sample_header(3, 2);
  Block unsealed(kBlock);
  encode_unsealed(header, kJournal, unsealed);
  Block blocks = encoded(header);
  EXPECT_NE(blocks, unsealed);
  strip_seal(blocks);
  EXPECT_EQ(blocks, unsealed);
}

TEST(JournalHeader, IsRefusedWithAnyBitFlipped) {
  Block blocks = encoded(sample_header(120, 60));
  ASSERT_EQ(blocks.size(), 2 * kBlock);
  for (size_t bit = 0; bit < blocks.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    blocks[bit / 8] ^= mask;
    ASSERT_FALSE(parse_header(blocks, kJournal).has_value()) << "bit " << bit;
    blocks[bit / 8] ^= mask;
  }
}

TEST(JournalHeader, OfAnotherJournalIsNone) {
  EXPECT_EQ(refusal(parse_header(encoded(sample_header(1, 1)), id_of(0))), "no header");
}

TEST(JournalHeader, IsNotFoundInTooFewBytes) {
  const Block blocks = encoded(sample_header(kEntriesMax, kPayloadBlocksMax));
  EXPECT_EQ(refusal(parse_header(Bytes(blocks).first(kBlock - 1), kJournal)),
            "no room for a header");
  EXPECT_EQ(refusal(parse_header(Bytes(blocks).first(2 * kBlock), kJournal)),
            "the header is cut short");
}

TEST(JournalHeader, IsRefusedIfItContradictsItself) {
  using Change = std::function<void(DiskHeader&)>;
  const std::vector<std::pair<const char*, Change>> changes = {
      {"unknown kind", [](DiskHeader& disk) { disk.kind = 4; }},
      {"no kind", [](DiskHeader& disk) { disk.kind = 0; }},
      {"later version", [](DiskHeader& disk) { disk.version = 2; }},
      {"reserved", [](DiskHeader& disk) { disk.reserved = 1; }},
      {"sealed twice", [](DiskHeader& disk) { disk.sealed = 2; }},
      {"too many entries", [](DiskHeader& disk) { disk.entries = kEntriesMax + 1; }},
      {"too much payload", [](DiskHeader& disk) { disk.payload_blocks = kPayloadBlocksMax + 1; }},
      {"data without entries", [](DiskHeader& disk) { disk.entries = 0; }},
      {"wrap with entries", [](DiskHeader& disk) { disk.kind = 2; }},
      {"mark with entries", [](DiskHeader& disk) { disk.kind = 3; }},
      {"mark with payload",
       [](DiskHeader& disk) {
         disk.kind = 3;
         disk.entries = 0;
       }},
      {"long header", [](DiskHeader& disk) { disk.header_blocks = 2; }},
      {"no header", [](DiskHeader& disk) { disk.header_blocks = 0; }},
      {"durable before written", [](DiskHeader& disk) { disk.durable_jseq = 12; }}};
  for (const auto& [what, how] : changes) {
    EXPECT_EQ(refusal_of(sample_header(3, 2), how), "the header contradicts itself") << what;
  }
}

TEST(JournalHeader, IsRefusedIfItNumbersEntriesThatItHasNot) {
  Header mark = sample_header(0, 0);
  mark.kind = RecordKind::kMark;
  EXPECT_EQ(refusal_of(mark, [](DiskHeader& disk) { disk.first_number = 1; }),
            "the header contradicts itself");
  EXPECT_EQ(refusal_of(mark, [](DiskHeader& disk) { disk.last_number = 1; }),
            "the header contradicts itself");
}

TEST(JournalHeader, IsRefusedIfItsEntriesContradictIt) {
  EXPECT_EQ(refusal_with_entry(1, [](DiskEntry& entry) { entry.reserved = 1; }),
            "an entry is not valid");
  EXPECT_EQ(refusal_with_entry(1, [](DiskEntry& entry) { entry.has_payload = 2; }),
            "an entry is not valid");
  EXPECT_EQ(refusal_with_entry(1, [](DiskEntry& entry) { entry.number = 100; }),
            "an entry is not valid");
  EXPECT_EQ(refusal_with_entry(0, [](DiskEntry& entry) { entry.blocks = 3; }),
            "entries and payload disagree");
  EXPECT_EQ(refusal_with_entry(2, [](DiskEntry& entry) { entry.has_payload = 1; }),
            "entries and payload disagree");
  EXPECT_EQ(refusal_of(sample_header(3, 2), [](DiskHeader& disk) { disk.last_number = 103; }),
            "the numbers of the entries disagree");
}

TEST(JournalHeader, IsRefusedWithBytesBehindItsEnd) {
  const Header header = sample_header(3, 2);
  Block blocks = encoded(header);
  blocks.back() = std::byte(1);
  finish_header(header.tag, blocks);
  EXPECT_EQ(refusal(parse_header(blocks, kJournal)), "bytes behind the header's end");
}

}  // namespace
}  // namespace usbd::journal
