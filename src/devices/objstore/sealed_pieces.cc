// SPDX-License-Identifier: Apache-2.0
//
// A piece's prefix but for its checksum is the associated data of its seal, so that number, kind,
// page and lengths are proven with it. The checksum tells rot from a wrong key.

#include "devices/objstore/sealed_pieces.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "base/all_zero.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"

namespace usbd::objstore {
namespace {

constexpr std::array<char, 8> kMagic = {'u', 's', 'b', 'd', 'm', 'a', 'p', '\n'};
constexpr uint16_t kVersion = 1;
constexpr std::string_view kSealLabel = "usbd-map-v1";

struct DiskHeader {
  std::array<char, 8> magic;
  Le16 version;
  uint8_t cipher;
  std::array<uint8_t, 5> reserved;
  VolumeId volume;
  Le64 epoch;
  Le64 id;
  ObjectSalt salt;
  std::array<uint8_t, 12> reserved_end;
  Le32 crc;  ///< Of all before it.
};
static_assert(sizeof(DiskHeader) == kMapHeaderBytes);

struct Prefix {
  Le32 number;
  Le32 page;
  Le32 logical;
  Le32 packed;  ///< Bytes between the prefix and the tag.
  uint8_t kind;
  uint8_t codec;
  std::array<uint8_t, 2> reserved;
  Le32 crc;  ///< Of all before it, and of all behind it.
};
static_assert(sizeof(Prefix) == kPiecePrefixBytes);
constexpr size_t kBoundBytes = offsetof(Prefix, crc);

struct Identity {
  VolumeId volume;
  Le64 epoch;
  Le64 id;
};
static_assert(sizeof(Identity) == 32);

Result<std::unique_ptr<const crypto::Sealer>> sealer_of(const VolumeSeal& seal,
                                                        const MapObjectId& object,
                                                        const ObjectSalt& salt) {
  const Identity identity{.volume = seal.volume, .epoch = object.epoch, .id = object.id};
  return crypto::make_sealer(seal.cipher, seal.key,
                             {.salt = salt, .label = kSealLabel, .identity = wire_bytes(identity)});
}

uint32_t crc_of(const Prefix& prefix, Bytes behind) {
  return crc32c(behind, crc32c(wire_bytes(prefix).first(kBoundBytes)));
}

Error damaged(std::string what) {
  return Error(Errc::kDamaged, std::move(what));
}

std::string_view name_of(PieceKind kind) {
  switch (kind) {
    case PieceKind::kMapPage:
      return "map page";
    case PieceKind::kTablePage:
      return "object table page";
    case PieceKind::kRoot:
      break;
  }
  return "root";
}

/// Whether the prefix is that of the piece which the pointer means, as it is stored in `size`
/// bytes.
bool agrees(const Prefix& prefix, const PieceLabel& label, const PiecePointer& pointer,
            uint64_t size) {
  return prefix.number == pointer.number && prefix.page == label.page &&
         prefix.kind == static_cast<uint8_t>(label.kind) && prefix.logical == pointer.logical &&
         size == pointer.stored && all_zero(wire_bytes(prefix.reserved));
}

Result<std::vector<std::byte>> open_piece(const crypto::Sealer& sealer, const PieceLabel& label,
                                          const PiecePointer& pointer, Bytes stored) {
  if (stored.size() != pointer.stored) {
    return damaged(
        fmt::format("is cut off: {} of its {} bytes are there", stored.size(), pointer.stored));
  }
  const auto prefix = wire_read<Prefix>(stored);
  const Bytes behind = stored.subspan(sizeof(Prefix));
  if (prefix.crc != crc_of(prefix, behind)) return damaged("is damaged: its checksum is wrong");
  const size_t tag = sealer.tag_size();
  const uint64_t size = sizeof(Prefix) + uint64_t{prefix.packed} + tag;
  const auto codec = codec::codec_of_number(prefix.codec);
  if (!codec || !agrees(prefix, label, pointer, size)) {
    return Error(Errc::kAccess, "is not what is said to be there");
  }
  std::vector<std::byte> packed(prefix.packed);
  if (!sealer.open(pointer.number, {wire_bytes(prefix).first(kBoundBytes)},
                   behind.first(packed.size()), behind.subspan(packed.size()), packed)) {
    return Error(Errc::kAccess,
                 "is not what was sealed: the key is another one, or it was changed or moved");
  }
  if (*codec == codec::CodecKind::kIdentity && packed.size() == pointer.logical) return packed;
  std::vector<std::byte> plain(pointer.logical);
  USBD_TRY_VOID(codec::decompress(*codec, packed, plain));
  return plain;
}

}  // namespace

std::string to_text(const MapObjectId& id) {
  return fmt::format("m/{:x}/{:x}", id.epoch, id.id);
}

DiskPiecePointer to_disk(const PiecePointer& pointer) {
  return {.epoch = pointer.object.epoch,
          .id = pointer.object.id,
          .offset = pointer.offset,
          .stored = pointer.stored,
          .logical = pointer.logical,
          .number = pointer.number};
}

Result<PiecePointer> from_disk(const DiskPiecePointer& disk) {
  const PiecePointer pointer{.object = {.epoch = disk.epoch, .id = disk.id},
                             .offset = disk.offset,
                             .stored = disk.stored,
                             .logical = disk.logical,
                             .number = disk.number};
  if (std::string wrong = check(pointer); !wrong.empty()) return Error(Errc::kInvalid, wrong);
  return pointer;
}

std::string check(const PiecePointer& pointer) {
  const uint64_t end = uint64_t{pointer.offset} + pointer.stored;
  const bool place = pointer.offset >= kMapHeaderBytes && end <= UINT32_MAX;
  // What compression does not shorten is stored as it is.
  const bool size =
      pointer.logical > 0 && pointer.logical <= limits::kCodecPieceMax &&
      pointer.stored > kPiecePrefixBytes &&
      pointer.stored <= kPiecePrefixBytes + pointer.logical + crypto::kSealTagBytesMax;
  if (place && size) return {};
  return fmt::format("no piece can have {} bytes, {} of them stored at {} of {}", pointer.logical,
                     pointer.stored, pointer.offset, to_text(pointer.object));
}

Result<MapHeader> parse_map_header(const VolumeSeal& seal, const MapObjectId& object, Bytes start) {
  if (start.size() < sizeof(DiskHeader)) {
    return damaged(fmt::format("is cut off: it has only {} bytes", start.size()));
  }
  const auto disk = wire_read<DiskHeader>(start);
  if (disk.magic != kMagic) return damaged("is no map object: it does not begin as one does");
  if (disk.crc != crc32c(wire_bytes(disk).first(offsetof(DiskHeader, crc)))) {
    return damaged("is damaged: the checksum of its header is wrong");
  }
  const auto cipher = crypto::cipher_of_number(disk.cipher);
  if (disk.version != kVersion || !cipher || !all_zero(wire_bytes(disk.reserved)) ||
      !all_zero(wire_bytes(disk.reserved_end))) {
    return Error(Errc::kNotSupported,
                 fmt::format("has version {}, or says what version {} does not know",
                             uint16_t{disk.version}, kVersion));
  }
  const MapHeader header{.volume = disk.volume,
                         .object = {.epoch = disk.epoch, .id = disk.id},
                         .salt = disk.salt,
                         .cipher = *cipher};
  if (header.volume != seal.volume) return damaged("belongs to another volume");
  if (header.object != object) {
    return damaged(fmt::format("holds {} instead: somebody copied it", to_text(header.object)));
  }
  if (header.cipher == seal.cipher) return header;
  return Error(Errc::kAccess,
               fmt::format("is sealed with {}, and the volume with {}",
                           crypto::to_text(header.cipher), crypto::to_text(seal.cipher)));
}

Result<PieceWriter> PieceWriter::create(const VolumeSeal& seal, const MapObjectId& object,
                                        const ObjectSalt& salt) {
  USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer, sealer_of(seal, object, salt));
  return PieceWriter(seal, object, salt, std::move(sealer));
}

PieceWriter::PieceWriter(const VolumeSeal& seal, const MapObjectId& object, const ObjectSalt& salt,
                         std::unique_ptr<const crypto::Sealer> sealer)
    : object_(object), salt_(salt), sealer_(std::move(sealer)) {
  DiskHeader header{.magic = kMagic,
                    .version = kVersion,
                    .cipher = static_cast<uint8_t>(seal.cipher),
                    .reserved = {},
                    .volume = seal.volume,
                    .epoch = object.epoch,
                    .id = object.id,
                    .salt = salt,
                    .reserved_end = {},
                    .crc = {}};
  header.crc = crc32c(wire_bytes(header).first(offsetof(DiskHeader, crc)));
  const Bytes bytes = wire_bytes(header);
  bytes_.assign(bytes.begin(), bytes.end());
}

PiecePointer PieceWriter::add(const PieceLabel& label, const codec::Codec& codec, Bytes plain) {
  USBD_ASSERT(!plain.empty());
  const std::optional<std::vector<std::byte>> compressed = codec::compress(codec, plain);
  const Bytes packed = compressed ? Bytes(*compressed) : plain;
  Prefix prefix{
      .number = pieces_,
      .page = label.page,
      .logical = static_cast<uint32_t>(plain.size()),
      .packed = static_cast<uint32_t>(packed.size()),
      .kind = static_cast<uint8_t>(label.kind),
      .codec = static_cast<uint8_t>(compressed ? codec.kind : codec::CodecKind::kIdentity),
      .reserved = {},
      .crc = {}};
  const size_t start = bytes_.size();
  const size_t stored = sizeof(Prefix) + packed.size() + sealer_->tag_size();
  USBD_ASSERT(start + stored <= UINT32_MAX);
  bytes_.resize(start + stored);
  const MutableBytes behind = MutableBytes(bytes_).subspan(start + sizeof(Prefix));
  sealer_->seal(pieces_, {wire_bytes(prefix).first(kBoundBytes)}, packed,
                behind.first(packed.size()), behind.subspan(packed.size()));
  prefix.crc = crc_of(prefix, behind);
  std::memcpy(bytes_.data() + start, &prefix, sizeof(prefix));
  return {.object = object_,
          .offset = static_cast<uint32_t>(start),
          .stored = static_cast<uint32_t>(stored),
          .logical = static_cast<uint32_t>(plain.size()),
          .number = pieces_++};
}

Result<PieceReader> PieceReader::create(const VolumeSeal& seal, const MapObjectId& object,
                                        const ObjectSalt& salt) {
  USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer, sealer_of(seal, object, salt));
  return PieceReader(object, std::move(sealer));
}

Result<std::vector<std::byte>> PieceReader::open(const PieceLabel& label,
                                                 const PiecePointer& pointer, Bytes stored) const {
  USBD_ASSERT(check(pointer).empty());
  USBD_ASSERT(pointer.object == object_);
  Result<std::vector<std::byte>> plain = open_piece(*sealer_, label, pointer, stored);
  if (plain) return plain;
  return Error(plain.error().code(), fmt::format("{} {} at {} {}", name_of(label.kind), label.page,
                                                 pointer.offset, plain.error().context()));
}

}  // namespace usbd::objstore
