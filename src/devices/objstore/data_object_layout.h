// SPDX-License-Identifier: Apache-2.0
//
// The structs of docs/formats/data-object.md as they lie in an object, and their translation. All
// numbers are little-endian. Reserved bytes are zero, and refused if they are not: what a later
// version puts there must not be ignored.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/endian.h"
#include "devices/objstore/data_object.h"

namespace usbd::objstore::layout {

inline constexpr uint16_t kVersion = 1;
using Magic = std::array<char, 8>;
inline constexpr Magic kHeaderMagic = {'u', 's', 'b', 'd', 'o', 'b', 'j', '\n'};
inline constexpr Magic kFooterMagic = {'\n', 'u', 's', 'b', 'd', 'e', 'n', 'd'};
inline constexpr uint8_t kBlockShift = 12;
inline constexpr uint8_t kFrameShift = 4;
/// What keys are derived for.
inline constexpr std::string_view kSealLabel = "usbd-obj-v1";
/// Frames are sealed under their number; the directory under the first that no frame has.
inline constexpr uint64_t kDirectoryIndex = uint64_t{1} << 32U;

struct Header {
  Magic magic;
  Le16 version;
  uint8_t kind;
  uint8_t cipher;
  uint8_t codec;
  uint8_t block_shift;
  uint8_t frame_shift;
  uint8_t reserved;
  VolumeId volume;
  Le64 epoch;
  Le64 seq;
  ObjectSalt salt;
  Le64 data_blocks;
  Le32 extents;
  Le32 frames;
  std::array<uint8_t, 28> reserved_end;
  Le32 crc;  ///< Of all before it.
};
static_assert(sizeof(Header) == 128);

/// What of the footer the directory's seal proves.
struct FooterFacts {
  Header header;
  Le64 object_bytes;
  Le64 directory_offset;
  Le32 directory_stored;
  Le32 directory_plain;
  uint8_t directory_codec;
  std::array<uint8_t, 7> reserved;
};
static_assert(sizeof(FooterFacts) == 160);

struct Footer {
  FooterFacts facts;
  Le32 directory_crc;  ///< Of its stored bytes.
  Le32 crc;            ///< Of all before it.
  Magic magic;
};
static_assert(sizeof(Footer) == 176);

/// The directory: this, then the frames, the extents and, for garbage collection, the sources, as
/// many as extents.
struct DirectoryHead {
  Le64 first_write;
  Le64 last_write;
};
static_assert(sizeof(DirectoryHead) == 16);

struct Frame {
  Le32 stored;
  Le32 logical;
  Le32 crc;
  uint8_t codec;
  std::array<uint8_t, 3> reserved;
};
static_assert(sizeof(Frame) == 16);

struct ExtentEntry {
  Le64 block_and_kind;  ///< The kind in the top byte.
  Le32 blocks;
};
static_assert(sizeof(ExtentEntry) == 12);
inline constexpr unsigned kKindShift = 56;

struct SourceEntry {
  Le64 epoch;
  Le64 seq;
  Le32 position;
  uint8_t kind;
  std::array<uint8_t, 3> reserved;
};
static_assert(sizeof(SourceEntry) == 24);

/// The associated data of a frame's seal.
struct FrameBinding {
  VolumeId volume;
  Le64 epoch;
  Le64 seq;
  uint8_t kind;
  uint8_t codec;
  std::array<uint8_t, 2> reserved;
  Le32 index;
  Le32 logical;
  Le32 stored;
};
static_assert(sizeof(FrameBinding) == 48);

/// Bytes of a directory before compression. Range: counts within their limits.
[[nodiscard]] size_t directory_bytes(ObjectKind kind, uint32_t extents, uint32_t frames);

[[nodiscard]] Header encode(const ObjectHeader& header);
/// Errors: kDamaged (no such header, or damaged), kNotSupported (of a later version).
Result<ObjectHeader> decode(const Header& raw);

[[nodiscard]] FrameBinding bind(const VolumeId& volume, const ObjectId& id, uint32_t index,
                                const FrameInfo& info);

/// Errors: as crypto::make_sealer().
Result<std::unique_ptr<const crypto::Sealer>> make_object_sealer(const VolumeSeal& seal,
                                                                 const ObjectId& id,
                                                                 const ObjectSalt& salt);

[[nodiscard]] std::vector<std::byte> encode(const DirectoryContents& contents);
/// Range:  `plain` has the directory_bytes() of `header`, asserted.
/// Errors: kDamaged: says something that cannot be; the context says what.
Result<DirectoryContents> decode(const ObjectHeader& header, Bytes plain);

}  // namespace usbd::objstore::layout
