// SPDX-License-Identifier: Apache-2.0
//
// The objects that checkpoints are made of, `m/<epoch>/<id>`: a plain header, then pieces, each
// compressed, then sealed. Whoever knows where a piece is fetches it alone; a piece also says what
// it is, so that all of them are found again without any list (docs/formats/checkpoint.md).

#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/endian.h"
#include "codec/codec.h"
#include "crypto/sealer.h"
#include "devices/objstore/data_object.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

/// Which object `m/<epoch>/<id>` of a volume.
struct MapObjectId {
  uint64_t epoch = 0;
  uint64_t id = 0;

  friend bool operator==(const MapObjectId&, const MapObjectId&) = default;
  friend auto operator<=>(const MapObjectId&, const MapObjectId&) = default;
};
/// Its name below the volume's prefix: `m/1/2a`.
[[nodiscard]] std::string to_text(const MapObjectId& id);

/// Stored: numbers are never given anew.
enum class PieceKind : uint8_t { kMapPage = 1, kTablePage = 2, kRoot = 3 };

/// What a piece is: it cannot be taken for another one.
struct PieceLabel {
  PieceKind kind = PieceKind::kRoot;
  /// Which of its kind; 0 for a root.
  uint32_t page = 0;

  friend bool operator==(const PieceLabel&, const PieceLabel&) = default;
};

/// Where a piece is. Units: bytes.
struct PiecePointer {
  MapObjectId object = {};
  /// Of its prefix in the object; `stored` counts from there to its end.
  uint32_t offset = 0;
  uint32_t stored = 0;
  /// Before compression.
  uint32_t logical = 0;
  /// Its place among the object's pieces.
  uint32_t number = 0;

  [[nodiscard]] ByteRange range() const { return {offset, stored}; }
  friend bool operator==(const PiecePointer&, const PiecePointer&) = default;
};

/// A PiecePointer as head and roots keep it.
struct DiskPiecePointer {
  Le64 epoch;
  Le64 id;
  Le32 offset;
  Le32 stored;
  Le32 logical;
  Le32 number;
};
static_assert(sizeof(DiskPiecePointer) == 32);
[[nodiscard]] DiskPiecePointer to_disk(const PiecePointer& pointer);
/// Errors: kInvalid: no piece can be there.
Result<PiecePointer> from_disk(const DiskPiecePointer& disk);
/// What is wrong with where a piece is said to be; empty: nothing.
[[nodiscard]] std::string check(const PiecePointer& pointer);

struct MapHeader {
  VolumeId volume{};
  MapObjectId object = {};
  ObjectSalt salt{};
  crypto::CipherMode cipher = crypto::CipherMode::kIdentity;
};
inline constexpr size_t kMapHeaderBytes = 96;
/// Bytes before each piece.
inline constexpr size_t kPiecePrefixBytes = 24;

/// What the start of an object says.
/// Errors: kDamaged (damaged, or no such object), kNotSupported (of a later version), kAccess (of
/// another
///         cipher); the context reads on after the name of an object.
Result<MapHeader> parse_map_header(const VolumeSeal& seal, const MapObjectId& object, Bytes start);

/// Makes one object.
class PieceWriter {
 public:
  /// Errors: kInvalid, kNotSupported: as crypto::make_sealer().
  static Result<PieceWriter> create(const VolumeSeal& seal, const MapObjectId& object,
                                    const ObjectSalt& salt);

  /// Compresses, seals and appends. Range: `plain` is not empty and has at most
  /// limits::kCodecPieceMax bytes, the object less than 4 GiB; asserted.
  PiecePointer add(const PieceLabel& label, const codec::Codec& codec, Bytes plain);

  [[nodiscard]] const MapObjectId& object() const { return object_; }
  [[nodiscard]] const ObjectSalt& salt() const { return salt_; }
  [[nodiscard]] uint32_t pieces() const { return pieces_; }
  /// The object as it is to be stored. Lifetime: until the next add().
  [[nodiscard]] Bytes bytes() const { return bytes_; }

 private:
  PieceWriter(const VolumeSeal& seal, const MapObjectId& object, const ObjectSalt& salt,
              std::unique_ptr<const crypto::Sealer> sealer);

  MapObjectId object_;
  ObjectSalt salt_;
  std::unique_ptr<const crypto::Sealer> sealer_;
  uint32_t pieces_ = 0;
  std::vector<std::byte> bytes_;
};

/// Opens the pieces of one object.
class PieceReader {
 public:
  /// `salt`: as its header or a root says. Errors: as of PieceWriter::create().
  static Result<PieceReader> create(const VolumeSeal& seal, const MapObjectId& object,
                                    const ObjectSalt& salt);

  /// The piece as it was before PieceWriter::add(), from its stored bytes, prefix included.
  /// Range:  `pointer` is one that check() accepts, of this object; asserted.
  /// Errors: kDamaged, kAccess (another key, or changed or moved on purpose); the
  ///         context names the piece.
  [[nodiscard]] Result<std::vector<std::byte>> open(const PieceLabel& label,
                                                    const PiecePointer& pointer,
                                                    Bytes stored) const;

 private:
  PieceReader(const MapObjectId& object, std::unique_ptr<const crypto::Sealer> sealer)
      : object_(object), sealer_(std::move(sealer)) {}

  MapObjectId object_;
  std::unique_ptr<const crypto::Sealer> sealer_;
};

}  // namespace usbd::objstore
