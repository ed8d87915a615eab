// SPDX-License-Identifier: Apache-2.0
//
// The journal's bytes on disk (docs/formats/journal.md): two superblocks, then a ring of records.
// A record is a header of one to three blocks, which lists its entries and seals every block of the
// payload, then the payload. Parsing believes nothing: what it returns has been checked for every
// property that later code relies on.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/endian.h"
#include "usbd/result.h"

namespace usbd::journal {

/// The unit of the ring and of payload. Units: bytes.
inline constexpr uint64_t kBlock = 4096;
inline constexpr uint64_t kRingStart = 2 * kBlock;
inline constexpr uint32_t kEntriesMax = 128;
inline constexpr uint32_t kPayloadBlocksMax = 256;
inline constexpr uint32_t kHeaderBlocksMax = 3;
inline constexpr uint64_t kRecordBytesMax = (kHeaderBlocksMax + kPayloadBlocksMax) * kBlock;
inline constexpr uint64_t kRingBytesMin = 16 * kBlock;
inline constexpr uint32_t kVersion = 1;

using Id = std::array<std::byte, 16>;
using Salt = std::array<std::byte, 16>;
using Tag = std::array<std::byte, 16>;

/// `id` as 32 hexadecimal digits.
[[nodiscard]] std::string to_hex(const Id& id);

// --- as it lies on disk
// ---------------------------------------------------------------------------

struct DiskSuperblock {
  std::array<char, 8> magic{};
  Le32 version;
  /// Of the whole block, with this field zero.
  Le32 crc;
  Id volume{};
  Id journal{};
  Le64 generation;
  Le64 ring_bytes;
  Le64 epoch;
  Le64 session;
  Le64 tail;
  Le64 tail_jseq;
  Le64 durable_jseq;
  Le64 released_number;
  Le64 session_jseq;
  Le32 session_previous_crc;
  Le32 reserved;
};
static_assert(sizeof(DiskSuperblock) == 128);

struct DiskHeader {
  Le32 magic;
  /// Of all header blocks, with this field zero.
  Le32 crc;
  Id journal{};
  Salt salt{};
  Le64 epoch;
  Le64 session;
  Le64 jseq;
  Le64 durable_jseq;
  Le64 first_number;
  Le64 last_number;
  Le32 previous_crc;
  Le32 header_blocks;
  Le32 payload_blocks;
  Le32 entries;
  Le16 version;
  uint8_t kind = 0;
  uint8_t sealed = 0;
  Le32 reserved;
  /// Authenticates the rest of the header (crc and tag as zeros) if `sealed`.
  Tag tag{};
};
static_assert(sizeof(DiskHeader) == 128);

struct DiskEntry {
  Le64 number;
  Le64 block;
  Le32 blocks;
  uint8_t kind = 0;
  uint8_t has_payload = 0;
  Le16 reserved;
};
static_assert(sizeof(DiskEntry) == 24);

struct DiskSeal {
  Le32 crc;
  Tag tag{};
};
static_assert(sizeof(DiskSeal) == 20);

// --- as code uses it
// ------------------------------------------------------------------------------

struct Superblock {
  Id volume{};
  Id journal{};
  /// Of two superblocks the one with the higher generation counts.
  uint64_t generation = 0;
  /// Units: bytes. A multiple of kBlock.
  uint64_t ring_bytes = 0;
  /// The owner's: the epoch last taken, or about to be taken, with this journal.
  uint64_t epoch = 0;
  /// Counts openings for writing. Records of a session never have a lower one after them.
  uint64_t session = 0;
  /// Where the oldest record that counts begins, and its number. Units: bytes from the ring's
  /// start.
  uint64_t tail = 0;
  uint64_t tail_jseq = 1;
  /// Every record up to this one was known to be on stable storage.
  uint64_t durable_jseq = 0;
  /// Entries up to this number are safe elsewhere.
  uint64_t released_number = 0;
  /// Of the session's first record, written yet or not. All before it is durable.
  uint64_t session_jseq = 1;
  /// The crc of the record that it follows; 0: there was none.
  uint32_t session_previous_crc = 0;

  friend bool operator==(const Superblock&, const Superblock&) = default;
};

enum class RecordKind : uint8_t {
  kData = 1,
  kWrap = 2,  ///< The next record is at the ring's start.
  kMark = 3,  ///< Nothing but what it says about records before it.
};

/// One change, or whatever else the owner keeps in order.
struct Entry {
  /// The owner's; rises by one from entry to entry.
  uint64_t number = 0;
  uint64_t block = 0;
  uint32_t blocks = 0;
  /// The owner's meaning.
  uint8_t kind = 0;
  /// Whether `blocks` blocks of payload belong to it.
  bool has_payload = false;

  friend bool operator==(const Entry&, const Entry&) = default;
};

/// How one block of payload is known to be the right one.
struct Seal {
  /// Of the block as it lies on disk.
  uint32_t crc = 0;
  /// Zeros if the record is not sealed.
  Tag tag{};
};

struct Header {
  RecordKind kind = RecordKind::kData;
  bool sealed = false;
  Salt salt{};
  uint64_t epoch = 0;
  uint64_t session = 0;
  uint64_t jseq = 0;
  uint64_t durable_jseq = 0;
  /// The crc of the record before; of the first one of a ring: 0.
  uint32_t previous_crc = 0;
  uint32_t header_blocks = 1;
  std::vector<Entry> entries;
  /// One for each block of payload, in the entries' order.
  std::vector<Seal> seals;
  Tag tag{};
  /// Its own.
  uint32_t crc = 0;

  [[nodiscard]] uint64_t bytes() const { return (header_blocks + seals.size()) * kBlock; }
};

/// Blocks that the header of a record takes. Range: within the maxima; asserted.
[[nodiscard]] uint32_t header_blocks_for(size_t entries, size_t payload_blocks);

/// Fills one block. Range: `out` is kBlock bytes.
void encode(const Superblock& superblock, MutableBytes out);

/// Fills the header's blocks but for crc and tag: what a tag authenticates.
/// Range: `out` is header.header_blocks * kBlock bytes.
void encode_unsealed(const Header& header, const Id& journal, MutableBytes out);
/// Puts the tag and the crc in, and returns the crc.
uint32_t finish_header(const Tag& tag, MutableBytes out);
/// Makes of a whole header what its tag authenticates: crc and tag as zeros.
void strip_seal(MutableBytes header);

/// Errors: kNotFound: no superblock of this format (foreign, never written, or torn);
/// kNotSupported:
///         of a later version.
Result<Superblock> parse_superblock(Bytes block);

/// Reads a header from the blocks at the start of `from`, which may hold fewer than it has.
/// Errors: kNotFound: none that is whole and belongs to `journal`.
Result<Header> parse_header(Bytes from, const Id& journal);

}  // namespace usbd::journal
