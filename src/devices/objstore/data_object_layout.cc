// SPDX-License-Identifier: Apache-2.0
//
// Nothing is believed that can be computed: offsets and positions are sums of what comes before.

#include "devices/objstore/data_object_layout.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/all_zero.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"

namespace usbd::objstore::layout {
namespace {

constexpr uint64_t kBlockMask = (uint64_t{1} << kKindShift) - 1;

bool is_object_kind(uint8_t kind) {
  return kind == static_cast<uint8_t>(ObjectKind::kData) ||
         kind == static_cast<uint8_t>(ObjectKind::kGc);
}

uint32_t crc_of(const Header& header) {
  return crc32c(wire_bytes(header).first(offsetof(Header, crc)));
}

Error damaged(std::string what) {
  return Error(Errc::kDamaged, std::move(what));
}

/// What the header says beside codec and cipher.
Result<void> check_facts(const Header& raw) {
  if (raw.block_shift != kBlockShift || raw.frame_shift != kFrameShift) {
    return Error(Errc::kNotSupported,
                 "has blocks or frames of a size that this version does not know");
  }
  if (!is_object_kind(raw.kind) || raw.reserved != 0 || !all_zero(wire_bytes(raw.reserved_end))) {
    return Error(Errc::kNotSupported, "says in its header what this version does not know");
  }
  const uint64_t frames = (uint64_t{raw.data_blocks} + kFrameBlocks - 1) / kFrameBlocks;
  if (raw.data_blocks > limits::kObjectBlocksMax || raw.extents > limits::kObjectExtentsMax ||
      raw.frames != frames) {
    return damaged(fmt::format("claims {} extents, {} frames and {} blocks", uint32_t{raw.extents},
                               uint32_t{raw.frames}, uint64_t{raw.data_blocks}));
  }
  return {};
}

/// Takes structs one after the other.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : rest_(bytes) {}

  template <WireStruct T>
  T take() {
    const T value = wire_read<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }

 private:
  Bytes rest_;
};

class Decoder {
 public:
  Decoder(const ObjectHeader& header, Bytes plain) : header_(header), cursor_(plain) {}

  Result<DirectoryContents> run() {
    const auto head = cursor_.take<DirectoryHead>();
    contents_.first_write = head.first_write;
    contents_.last_write = head.last_write;
    if (contents_.first_write > contents_.last_write) {
      return damaged("claims a first write after its last");
    }
    contents_.frames.reserve(header_.frames);
    contents_.extents.reserve(header_.extents);
    for (uint32_t i = 0; i < header_.frames; ++i) USBD_TRY_VOID(take_frame(i));
    for (uint32_t i = 0; i < header_.extents; ++i) USBD_TRY_VOID(take_extent(i));
    if (position_ != header_.data_blocks) {
      return damaged(fmt::format("has {} blocks in its extents and {} in its frames", position_,
                                 header_.data_blocks));
    }
    if (header_.id.kind == ObjectKind::kGc) {
      contents_.sources.reserve(header_.extents);
      for (uint32_t i = 0; i < header_.extents; ++i) USBD_TRY_VOID(take_source(i));
    }
    return std::move(contents_);
  }

 private:
  Result<void> take_frame(uint32_t index) {
    const auto raw = cursor_.take<Frame>();
    const auto codec = codec::codec_of_number(raw.codec);
    if (!codec || !all_zero(wire_bytes(raw.reserved))) {
      return Error(Errc::kNotSupported,
                   fmt::format("says of frame {} what this version does not know", index));
    }
    const uint64_t blocks_left = header_.data_blocks - uint64_t{index} * kFrameBlocks;
    const uint64_t logical = std::min<uint64_t>(blocks_left, kFrameBlocks) * kBlockBytes;
    const size_t tag = crypto::tag_bytes(header_.cipher);
    const bool raw_codec = *codec == codec::CodecKind::kIdentity;
    const bool stored_fits =
        raw_codec ? raw.stored == logical + tag : raw.stored > tag && raw.stored < logical + tag;
    if (raw.logical != logical || !stored_fits) {
      return damaged(fmt::format("claims that frame {} has {} bytes, stored as {}", index,
                                 uint32_t{raw.logical}, uint32_t{raw.stored}));
    }
    contents_.frames.push_back({.offset = offset_,
                                .stored = raw.stored,
                                .logical = raw.logical,
                                .crc = raw.crc,
                                .codec = *codec});
    offset_ += raw.stored;
    return {};
  }

  Result<void> take_extent(uint32_t index) {
    const auto raw = cursor_.take<ExtentEntry>();
    const uint64_t block = raw.block_and_kind & kBlockMask;
    const uint64_t kind = raw.block_and_kind >> kKindShift;
    if (kind < static_cast<uint64_t>(ExtentKind::kData) ||
        kind > static_cast<uint64_t>(ExtentKind::kZero)) {
      return Error(Errc::kNotSupported,
                   fmt::format("has extent {} of a kind that this version does not know", index));
    }
    if (raw.blocks == 0 || block + raw.blocks > kBlockEnd) {
      return damaged(fmt::format("claims that extent {} has {} blocks from block {} on", index,
                                 uint32_t{raw.blocks}, block));
    }
    Extent extent{.block = block,
                  .blocks = raw.blocks,
                  .kind = static_cast<ExtentKind>(kind),
                  .position = {}};
    if (extent.kind == ExtentKind::kData) {
      if (extent.blocks > header_.data_blocks - position_) {
        return damaged(fmt::format("has extent {} go beyond its last frame", index));
      }
      extent.position.value = static_cast<uint32_t>(position_);
      position_ += extent.blocks;
    }
    contents_.extents.push_back(extent);
    return {};
  }

  Result<void> take_source(uint32_t index) {
    const auto raw = cursor_.take<SourceEntry>();
    const bool has_source = contents_.extents[index].kind == ExtentKind::kData;
    const Bytes bytes = wire_bytes(raw);
    const bool nothing =
        std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
    const bool right =
        has_source ? is_object_kind(raw.kind) && all_zero(wire_bytes(raw.reserved)) : nothing;
    if (!right) return damaged(fmt::format("has extent {} come from where nothing can be", index));
    Source source;
    if (has_source) {
      source = {
          .object = {.epoch = raw.epoch, .seq = raw.seq, .kind = static_cast<ObjectKind>(raw.kind)},
          .position = {raw.position}};
    }
    contents_.sources.push_back(source);
    return {};
  }

  const ObjectHeader& header_;
  Cursor cursor_;
  DirectoryContents contents_;
  uint64_t offset_ = sizeof(Header);
  uint64_t position_ = 0;
};

SourceEntry entry_of(const Source& source, ExtentKind kind) {
  SourceEntry entry{};
  if (kind != ExtentKind::kData) return entry;
  entry.epoch = source.object.epoch;
  entry.seq = source.object.seq;
  entry.position = source.position.value;
  entry.kind = static_cast<uint8_t>(source.object.kind);
  return entry;
}

}  // namespace

size_t directory_bytes(ObjectKind kind, uint32_t extents, uint32_t frames) {
  const size_t each = sizeof(ExtentEntry) + (kind == ObjectKind::kGc ? sizeof(SourceEntry) : 0);
  return sizeof(DirectoryHead) + frames * sizeof(Frame) + extents * each;
}

Header encode(const ObjectHeader& header) {
  Header raw{};
  raw.magic = kHeaderMagic;
  raw.version = kVersion;
  raw.kind = static_cast<uint8_t>(header.id.kind);
  raw.cipher = static_cast<uint8_t>(header.cipher);
  raw.codec = static_cast<uint8_t>(header.codec);
  raw.block_shift = kBlockShift;
  raw.frame_shift = kFrameShift;
  raw.volume = header.volume;
  raw.epoch = header.id.epoch;
  raw.seq = header.id.seq;
  raw.salt = header.salt;
  raw.data_blocks = header.data_blocks;
  raw.extents = header.extents;
  raw.frames = header.frames;
  raw.crc = crc_of(raw);
  return raw;
}

Result<ObjectHeader> decode(const Header& raw) {
  if (raw.magic != kHeaderMagic) return damaged("is no data object: it does not begin as one does");
  if (raw.crc != crc_of(raw)) return damaged("is damaged: the checksum of its header is wrong");
  if (raw.version != kVersion) {
    return Error(Errc::kNotSupported, fmt::format("has version {} of the format, and this "
                                                  "program knows version {}",
                                                  uint16_t{raw.version}, kVersion));
  }
  USBD_TRY_VOID(check_facts(raw));
  const auto cipher = crypto::cipher_of_number(raw.cipher);
  if (!cipher) return Error(Errc::kNotSupported, "says: " + cipher.error().context());
  const auto codec = codec::codec_of_number(raw.codec);
  if (!codec) return Error(Errc::kNotSupported, "says: " + codec.error().context());
  return ObjectHeader{
      .volume = raw.volume,
      .id = {.epoch = raw.epoch, .seq = raw.seq, .kind = static_cast<ObjectKind>(raw.kind)},
      .salt = raw.salt,
      .cipher = *cipher,
      .codec = *codec,
      .extents = raw.extents,
      .frames = raw.frames,
      .data_blocks = raw.data_blocks};
}

FrameBinding bind(const VolumeId& volume, const ObjectId& id, uint32_t index,
                  const FrameInfo& info) {
  FrameBinding binding{};
  binding.volume = volume;
  binding.epoch = id.epoch;
  binding.seq = id.seq;
  binding.kind = static_cast<uint8_t>(id.kind);
  binding.codec = static_cast<uint8_t>(info.codec);
  binding.index = index;
  binding.logical = info.logical;
  binding.stored = info.stored;
  return binding;
}

Result<std::unique_ptr<const crypto::Sealer>> make_object_sealer(const VolumeSeal& seal,
                                                                 const ObjectId& id,
                                                                 const ObjectSalt& salt) {
  const FrameBinding identity = bind(seal.volume, id, 0, {});
  return crypto::make_sealer(
      seal.cipher, seal.key,
      {.salt = salt,
       .label = kSealLabel,
       .identity = wire_bytes(identity).first(offsetof(FrameBinding, codec))});
}

std::vector<std::byte> encode(const DirectoryContents& contents) {
  const ObjectKind kind = contents.sources.empty() ? ObjectKind::kData : ObjectKind::kGc;
  std::vector<std::byte> plain;
  plain.reserve(directory_bytes(kind, static_cast<uint32_t>(contents.extents.size()),
                                static_cast<uint32_t>(contents.frames.size())));
  wire_append(
      plain, DirectoryHead{.first_write = contents.first_write, .last_write = contents.last_write});
  for (const FrameInfo& frame : contents.frames) {
    wire_append(plain, Frame{.stored = frame.stored,
                             .logical = frame.logical,
                             .crc = frame.crc,
                             .codec = static_cast<uint8_t>(frame.codec),
                             .reserved = {}});
  }
  for (const Extent& extent : contents.extents) {
    const uint64_t extent_kind = static_cast<uint64_t>(extent.kind) << kKindShift;
    wire_append(plain,
                ExtentEntry{.block_and_kind = extent.block | extent_kind, .blocks = extent.blocks});
  }
  for (size_t i = 0; i < contents.sources.size(); ++i) {
    wire_append(plain, entry_of(contents.sources[i], contents.extents[i].kind));
  }
  return plain;
}

Result<DirectoryContents> decode(const ObjectHeader& header, Bytes plain) {
  USBD_ASSERT(plain.size() == directory_bytes(header.id.kind, header.extents, header.frames));
  return Decoder(header, plain).run();
}

}  // namespace usbd::objstore::layout
