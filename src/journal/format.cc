// SPDX-License-Identifier: Apache-2.0
//
// Both directions of every structure of the journal stand side by side.

#include "journal/format.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/all_zero.h"
#include "base/assert.h"
#include "base/crc32c.h"

namespace usbd::journal {
namespace {

constexpr std::array<char, 8> kSuperblockMagic = {'u', 's', 'b', 'd', '-', 'j', 'n', 'l'};
constexpr uint32_t kHeaderMagic = 0x524a4255;  // "UBJR"

constexpr size_t kCrcOffset = 4;
static_assert(offsetof(DiskHeader, crc) == kCrcOffset);
constexpr size_t kSuperblockCrcOffset = offsetof(DiskSuperblock, crc);

template <WireStruct T>
void put(MutableBytes out, size_t& at, const T& value) {
  std::memcpy(out.data() + at, &value, sizeof(T));
  at += sizeof(T);
}

template <WireStruct T>
T take(Bytes from, size_t& at) {
  T value = wire_read<T>(from.subspan(at));
  at += sizeof(T);
  return value;
}

/// The crc of `block` as if the field at `at` were zero.
uint32_t crc_without(Bytes block, size_t at) {
  constexpr Le32 kZero;
  uint32_t crc = crc32c(block.first(at));
  crc = crc32c(wire_bytes(kZero), crc);
  return crc32c(block.subspan(at + sizeof(Le32)), crc);
}

Error no_header(const char* why) {
  return Error(Errc::kNotFound, why);
}

/// Whether the fixed part promises something that can be true.
bool plausible(const DiskHeader& disk) {
  const uint8_t kind = disk.kind;
  const bool data = kind == static_cast<uint8_t>(RecordKind::kData);
  const bool empty = kind == static_cast<uint8_t>(RecordKind::kWrap) ||
                     kind == static_cast<uint8_t>(RecordKind::kMark);
  if (!data && !empty) return false;
  if (disk.version != kVersion || disk.reserved != 0 || disk.sealed > 1) return false;
  if (disk.entries > kEntriesMax || disk.payload_blocks > kPayloadBlocksMax) return false;
  if (data != (disk.entries > 0) || (empty && disk.payload_blocks > 0)) return false;
  if (empty && (disk.first_number | disk.last_number) != 0) return false;
  return disk.header_blocks == header_blocks_for(disk.entries, disk.payload_blocks) &&
         disk.jseq > disk.durable_jseq;
}

/// Reads the entries and checks that they are what the fixed part says.
Result<void> read_entries(Bytes from, size_t& at, const DiskHeader& disk, Header& header) {
  uint64_t payload = 0;
  for (uint32_t i = 0; i < disk.entries; ++i) {
    const auto entry = take<DiskEntry>(from, at);
    if (entry.reserved != 0 || entry.has_payload > 1 || entry.number != disk.first_number + i) {
      return no_header("an entry is not valid");
    }
    if (entry.has_payload == 1) payload += entry.blocks;
    header.entries.push_back({.number = entry.number,
                              .block = entry.block,
                              .blocks = entry.blocks,
                              .kind = entry.kind,
                              .has_payload = entry.has_payload == 1});
  }
  if (payload != disk.payload_blocks) return no_header("entries and payload disagree");
  if (!header.entries.empty() && header.entries.back().number != disk.last_number) {
    return no_header("the numbers of the entries disagree");
  }
  return {};
}

}  // namespace

std::string to_hex(const Id& id) {
  std::string text;
  for (const std::byte byte : id) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

uint32_t header_blocks_for(size_t entries, size_t payload_blocks) {
  USBD_ASSERT(entries <= kEntriesMax);
  USBD_ASSERT(payload_blocks <= kPayloadBlocksMax);
  const size_t bytes =
      sizeof(DiskHeader) + entries * sizeof(DiskEntry) + payload_blocks * sizeof(DiskSeal);
  static_assert(sizeof(DiskHeader) + kEntriesMax * sizeof(DiskEntry) +
                    kPayloadBlocksMax * sizeof(DiskSeal) <=
                kHeaderBlocksMax * kBlock);
  return static_cast<uint32_t>((bytes + kBlock - 1) / kBlock);
}

void encode(const Superblock& superblock, MutableBytes out) {
  USBD_ASSERT(out.size() == kBlock);
  DiskSuperblock disk;
  disk.magic = kSuperblockMagic;
  disk.version = kVersion;
  disk.volume = superblock.volume;
  disk.journal = superblock.journal;
  disk.generation = superblock.generation;
  disk.ring_bytes = superblock.ring_bytes;
  disk.epoch = superblock.epoch;
  disk.session = superblock.session;
  disk.tail = superblock.tail;
  disk.tail_jseq = superblock.tail_jseq;
  disk.durable_jseq = superblock.durable_jseq;
  disk.released_number = superblock.released_number;
  disk.session_jseq = superblock.session_jseq;
  disk.session_previous_crc = superblock.session_previous_crc;
  std::ranges::fill(out, std::byte(0));
  std::memcpy(out.data(), &disk, sizeof(disk));
  const Le32 crc = crc_without(out, kSuperblockCrcOffset);
  std::memcpy(out.data() + kSuperblockCrcOffset, &crc, sizeof(crc));
}

Result<Superblock> parse_superblock(Bytes block) {
  USBD_ASSERT(block.size() == kBlock);
  const auto disk = wire_read<DiskSuperblock>(block);
  if (disk.magic != kSuperblockMagic) return Error(Errc::kNotFound, "no superblock of a journal");
  if (disk.crc != crc_without(block, kSuperblockCrcOffset)) {
    return Error(Errc::kNotFound, "the superblock's checksum is wrong");
  }
  if (disk.version != kVersion) {
    return Error(Errc::kNotSupported,
                 fmt::format("the journal is of version {}; this program knows version {}",
                             uint32_t{disk.version}, kVersion));
  }
  const uint64_t ring = disk.ring_bytes;
  const bool aligned = ring % kBlock == 0 && disk.tail % kBlock == 0;
  const bool begun = disk.session_jseq > 0 && disk.durable_jseq >= disk.session_jseq - 1;
  if (!aligned || ring < kRingBytesMin || disk.tail >= ring || disk.tail_jseq == 0 || !begun ||
      disk.reserved != 0 || !all_zero(block.subspan(sizeof(DiskSuperblock)))) {
    return Error(Errc::kNotFound, "the superblock contradicts itself");
  }
  return Superblock{.volume = disk.volume,
                    .journal = disk.journal,
                    .generation = disk.generation,
                    .ring_bytes = ring,
                    .epoch = disk.epoch,
                    .session = disk.session,
                    .tail = disk.tail,
                    .tail_jseq = disk.tail_jseq,
                    .durable_jseq = disk.durable_jseq,
                    .released_number = disk.released_number,
                    .session_jseq = disk.session_jseq,
                    .session_previous_crc = disk.session_previous_crc};
}

void encode_unsealed(const Header& header, const Id& journal, MutableBytes out) {
  USBD_ASSERT(out.size() == header.header_blocks * kBlock);
  DiskHeader disk;
  disk.magic = kHeaderMagic;
  disk.journal = journal;
  disk.salt = header.salt;
  disk.epoch = header.epoch;
  disk.session = header.session;
  disk.jseq = header.jseq;
  disk.durable_jseq = header.durable_jseq;
  if (!header.entries.empty()) {
    disk.first_number = header.entries.front().number;
    disk.last_number = header.entries.back().number;
  }
  disk.previous_crc = header.previous_crc;
  disk.header_blocks = header.header_blocks;
  disk.payload_blocks = static_cast<uint32_t>(header.seals.size());
  disk.entries = static_cast<uint32_t>(header.entries.size());
  disk.version = kVersion;
  disk.kind = static_cast<uint8_t>(header.kind);
  disk.sealed = header.sealed ? 1 : 0;
  std::ranges::fill(out, std::byte(0));
  size_t at = 0;
  put(out, at, disk);
  for (const Entry& entry : header.entries) {
    DiskEntry one;
    one.number = entry.number;
    one.block = entry.block;
    one.blocks = entry.blocks;
    one.kind = entry.kind;
    one.has_payload = entry.has_payload ? 1 : 0;
    put(out, at, one);
  }
  for (const Seal& seal : header.seals) put(out, at, DiskSeal{.crc = seal.crc, .tag = seal.tag});
}

uint32_t finish_header(const Tag& tag, MutableBytes out) {
  std::memcpy(out.data() + offsetof(DiskHeader, tag), tag.data(), tag.size());
  const uint32_t crc = crc_without(out, kCrcOffset);
  const Le32 stored = crc;
  std::memcpy(out.data() + kCrcOffset, &stored, sizeof(stored));
  return crc;
}

void strip_seal(MutableBytes header) {
  std::memset(header.data() + kCrcOffset, 0, sizeof(Le32));
  std::memset(header.data() + offsetof(DiskHeader, tag), 0, sizeof(Tag));
}

Result<Header> parse_header(Bytes from, const Id& journal) {
  if (from.size() < kBlock) return no_header("no room for a header");
  size_t at = 0;
  const auto disk = take<DiskHeader>(from, at);
  if (disk.magic != kHeaderMagic || disk.journal != journal) return no_header("no header");
  if (!plausible(disk)) return no_header("the header contradicts itself");
  if (from.size() < disk.header_blocks * kBlock) return no_header("the header is cut short");
  from = from.first(disk.header_blocks * kBlock);
  if (disk.crc != crc_without(from, kCrcOffset)) return no_header("wrong checksum");
  Header header{.kind = static_cast<RecordKind>(disk.kind),
                .sealed = disk.sealed == 1,
                .salt = disk.salt,
                .epoch = disk.epoch,
                .session = disk.session,
                .jseq = disk.jseq,
                .durable_jseq = disk.durable_jseq,
                .previous_crc = disk.previous_crc,
                .header_blocks = disk.header_blocks,
                .entries = {},
                .seals = {},
                .tag = disk.tag,
                .crc = disk.crc};
  USBD_TRY_VOID(read_entries(from, at, disk, header));
  for (uint32_t i = 0; i < disk.payload_blocks; ++i) {
    const auto seal = take<DiskSeal>(from, at);
    header.seals.push_back({.crc = seal.crc, .tag = seal.tag});
  }
  if (!all_zero(from.subspan(at))) return no_header("bytes behind the header's end");
  return header;
}

}  // namespace usbd::journal
