// SPDX-License-Identifier: Apache-2.0
//
// What a data object of an objstore volume is made of, in memory: which object it is, what it holds
// for which blocks, and how its frames are stored. docs/formats/data-object.md is the format;
// data_object_layout.h has its structs, data_object_writer.h and data_object_reader.h make and read
// it.
//
// An object holds extents in the order of the writes. The blocks of its data extents follow each
// other in frames of 16 blocks, all full but the last: a position counts blocks from the first, so
// that position / 16 is the frame and position % 16 the block inside.

#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "crypto/sealer.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

/// The unit of the map, and of everything that an object says. Units: bytes.
inline constexpr uint64_t kBlockBytes = 4096;
inline constexpr uint32_t kFrameBlocks = 16;
inline constexpr uint32_t kFrameBytes = kFrameBlocks * kBlockBytes;
/// The first block that no volume has: 2^63 bytes.
inline constexpr uint64_t kBlockEnd = uint64_t{1} << 51U;

using VolumeId = std::array<std::byte, 16>;
/// Drawn anew, from the system's entropy, each time that an object is sealed.
using ObjectSalt = std::array<std::byte, 32>;

/// Stored: numbers are never given anew.
enum class ObjectKind : uint8_t {
  kData = 1,  ///< d/<epoch>/<seq>: what was written, from one write number to another.
  kGc = 2,    ///< g/<epoch>/<id>: live blocks of other objects.
};
enum class ExtentKind : uint8_t {
  kData = 1,
  kTrim = 2,  ///< Its contents do not matter any more.
  kZero = 3,  ///< All zeros, and nothing stored.
};

/// Which object of a volume.
struct ObjectId {
  uint64_t epoch = 0;
  uint64_t seq = 0;
  ObjectKind kind = ObjectKind::kData;

  friend auto operator<=>(const ObjectId&, const ObjectId&) = default;
};
/// Its name below the volume's prefix: `d/1/42`.
std::string to_text(const ObjectId& id);

/// A block inside an object.
struct Position {
  uint32_t value = 0;

  [[nodiscard]] uint32_t frame() const { return value / kFrameBlocks; }
  [[nodiscard]] uint32_t block() const { return value % kFrameBlocks; }
  friend auto operator<=>(const Position&, const Position&) = default;
};

/// Where garbage collection took the blocks of an extent from: they follow each other there too.
struct Source {
  ObjectId object = {};
  Position position = {};

  friend bool operator==(const Source&, const Source&) = default;
};

/// What the object says about blocks of the volume that follow each other.
struct Extent {
  uint64_t block = 0;
  uint32_t blocks = 0;
  ExtentKind kind = ExtentKind::kData;
  /// Of its first block; 0 if the kind is not kData.
  Position position = {};

  friend bool operator==(const Extent&, const Extent&) = default;
};

/// Memory for the blocks of a frame, decoded. Contents are not initialised.
class FrameBuffer {
 public:
  explicit FrameBuffer(size_t size)
      : memory_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}

  [[nodiscard]] MutableBytes bytes() { return {memory_.get(), size_}; }
  [[nodiscard]] Bytes bytes() const { return {memory_.get(), size_}; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  std::unique_ptr<std::byte[]> memory_;
  size_t size_;
};
/// As those share it who want it.
using FrameMemory = std::shared_ptr<const FrameBuffer>;

/// How one frame is stored. Units: bytes.
struct FrameInfo {
  uint64_t offset = 0;
  /// With the seal's tag.
  uint32_t stored = 0;
  /// Whole blocks.
  uint32_t logical = 0;
  /// CRC-32C of the stored bytes.
  uint32_t crc = 0;
  codec::CodecKind codec = codec::CodecKind::kIdentity;

  [[nodiscard]] ByteRange range() const { return {offset, stored}; }
  friend bool operator==(const FrameInfo&, const FrameInfo&) = default;
};

/// What the plain header says, which stands at the start and again at the end.
struct ObjectHeader {
  VolumeId volume{};
  ObjectId id = {};
  ObjectSalt salt{};
  crypto::CipherMode cipher = crypto::CipherMode::kIdentity;
  /// What frames are compressed with if that gains enough; each says it for itself.
  codec::CodecKind codec = codec::CodecKind::kIdentity;
  uint32_t extents = 0;
  uint32_t frames = 0;
  uint64_t data_blocks = 0;

  friend bool operator==(const ObjectHeader&, const ObjectHeader&) = default;
};

/// What an object's directory says.
struct DirectoryContents {
  uint64_t first_write = 0;
  uint64_t last_write = 0;
  std::vector<FrameInfo> frames;
  std::vector<Extent> extents;
  /// As many as extents, or none if the object's kind is kData.
  std::vector<Source> sources;
};

/// What all objects of a volume are sealed with. An object of another volume or another cipher is
/// refused: else whoever can write to the bucket could put one there that is not encrypted.
/// Lifetime: `key` outlives every call that is given it; nothing keeps it.
struct VolumeSeal {
  VolumeId volume{};
  crypto::CipherMode cipher = crypto::CipherMode::kIdentity;
  /// Of 16, 24 or 32 bytes; ignored if the cipher is kIdentity.
  Bytes key = {};
};

/// Opens the frames of one object.
class FrameOpener {
 public:
  /// Errors: kInvalid, kNotSupported: as crypto::make_sealer().
  static Result<FrameOpener> create(const VolumeSeal& seal, const ObjectId& id,
                                    const ObjectSalt& salt);

  /// The blocks of frame number `index` from its stored bytes.
  /// Range:   `plain` has info.logical bytes, asserted; `stored` may be of any size.
  /// Threads: any, at the same time.
  /// Errors:  kDamaged, kAccess (another key, or changed or moved on purpose); then `plain`
  ///          is all zero.
  Result<void> open(uint32_t index, const FrameInfo& info, Bytes stored, MutableBytes plain) const;

 private:
  friend class TailParser;
  FrameOpener(const VolumeId& volume, const ObjectId& id,
              std::unique_ptr<const crypto::Sealer> sealer)
      : volume_(volume), id_(id), sealer_(std::move(sealer)) {}
  [[nodiscard]] Result<void> try_open(uint32_t index, const FrameInfo& info, Bytes stored,
                                      MutableBytes plain) const;

  VolumeId volume_;
  ObjectId id_;
  std::unique_ptr<const crypto::Sealer> sealer_;
};

}  // namespace usbd::objstore
