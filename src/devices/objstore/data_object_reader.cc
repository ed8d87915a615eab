// SPDX-License-Identifier: Apache-2.0
//
// Everything that the footer claims is checked against the object's size and the limits before
// memory is taken for it.

#include "devices/objstore/data_object_reader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "devices/objstore/data_object_layout.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t kObjectBytesMin = sizeof(layout::Header) + sizeof(layout::Footer);

Error damaged(std::string what) {
  return Error(Errc::kDamaged, std::move(what));
}

}  // namespace

class TailParser {
 public:
  TailParser(const VolumeSeal& seal, const ObjectId& id, Bytes tail, uint64_t object_bytes)
      : seal_(seal), id_(id), tail_(tail), object_bytes_(object_bytes) {}

  Result<Tail> run() {
    if (object_bytes_ < kObjectBytesMin) {
      return damaged(fmt::format("is truncated: it has {} bytes", object_bytes_));
    }
    if (tail_.size() < sizeof(layout::Footer)) {
      return missing(std::min<uint64_t>(object_bytes_, limits::kObjectTailBytes));
    }
    footer_ = wire_read<layout::Footer>(tail_.last(sizeof(layout::Footer)));
    USBD_TRY_VOID(check_footer());
    const auto decoded = layout::decode(footer_.facts.header);
    if (!decoded) return decoded.error();
    header_ = *decoded;
    USBD_TRY_VOID(check_identity());
    USBD_TRY_VOID(check_place());
    const uint64_t wanted = object_bytes_ - footer_.facts.directory_offset;
    if (tail_.size() < wanted) return missing(wanted);
    return open_directory(tail_.last(wanted).first(footer_.facts.directory_stored));
  }

 private:
  Tail missing(uint64_t size) const {
    return {.directory = std::nullopt, .missing = {object_bytes_ - size, size}};
  }

  Result<void> check_footer() const {
    const uint32_t crc = crc32c(wire_bytes(footer_).first(offsetof(layout::Footer, crc)));
    if (footer_.magic != layout::kFooterMagic) {
      return damaged("is truncated, or no data object: it does not end as one does");
    }
    if (footer_.crc != crc) return damaged("is damaged: the checksum of its footer is wrong");
    if (footer_.facts.object_bytes != object_bytes_) {
      return damaged(fmt::format("is truncated or extended: it has {} bytes and should have {}",
                                 object_bytes_, uint64_t{footer_.facts.object_bytes}));
    }
    return {};
  }

  Result<void> check_identity() const {
    if (header_.volume != seal_.volume) return damaged("belongs to another volume");
    if (header_.id != id_) {
      return damaged(fmt::format("holds {} instead: somebody copied it", to_text(header_.id)));
    }
    if (header_.cipher == seal_.cipher) return {};
    return Error(Errc::kAccess,
                 fmt::format("is sealed with {}, and the volume with {}",
                             crypto::to_text(header_.cipher), crypto::to_text(seal_.cipher)));
  }

  /// Where the directory is, and how large.
  Result<void> check_place() {
    const layout::FooterFacts& facts = footer_.facts;
    const uint64_t place_end = object_bytes_ - sizeof(layout::Footer);
    const uint64_t offset = facts.directory_offset;
    const uint32_t stored = facts.directory_stored;
    const bool inside =
        offset >= sizeof(layout::Header) && offset <= place_end && stored == place_end - offset;
    const size_t plain = layout::directory_bytes(header_.id.kind, header_.extents, header_.frames);
    const auto codec = codec::codec_of_number(facts.directory_codec);
    const bool reserved_zero =
        std::ranges::all_of(facts.reserved, [](uint8_t byte) { return byte == 0; });
    if (!codec || !reserved_zero) {
      return Error(Errc::kNotSupported, "says in its footer what this version does not know");
    }
    codec_ = *codec;
    const size_t tag = crypto::tag_bytes(header_.cipher);
    if (!inside || facts.directory_plain != plain || stored <= tag || stored > plain + tag) {
      return damaged(fmt::format("claims a directory of {} bytes, {} stored at {}",
                                 uint32_t{facts.directory_plain}, stored, offset));
    }
    return {};
  }

  Result<Tail> open_directory(Bytes stored) const {
    if (footer_.directory_crc != crc32c(stored)) {
      return damaged("is damaged: the checksum of its directory is wrong");
    }
    USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer,
             layout::make_object_sealer(seal_, id_, header_.salt));
    const Bytes cipher = stored.first(stored.size() - sealer->tag_size());
    std::vector<std::byte> packed(cipher.size());
    if (!sealer->open(layout::kDirectoryIndex, {wire_bytes(footer_.facts)}, cipher,
                      stored.last(sealer->tag_size()), packed)) {
      return Error(Errc::kAccess,
                   "is not what was sealed: the key is another one, or it was changed or moved");
    }
    std::vector<std::byte> plain(footer_.facts.directory_plain);
    USBD_TRY_VOID(codec::decompress(codec_, packed, plain));
    USBD_TRY(DirectoryContents contents, layout::decode(header_, plain));
    const uint64_t frames_end =
        contents.frames.empty() ? sizeof(layout::Header) : contents.frames.back().range().end();
    if (frames_end != footer_.facts.directory_offset) {
      return damaged("is damaged: its frames do not fill the place before its directory");
    }
    FrameOpener opener(seal_.volume, id_, std::move(sealer));
    Tail tail;
    tail.directory = Directory(header_, std::move(contents),
                               std::make_shared<const FrameOpener>(std::move(opener)));
    return tail;
  }

  const VolumeSeal& seal_;
  const ObjectId& id_;
  const Bytes tail_;
  const uint64_t object_bytes_;
  layout::Footer footer_{};
  ObjectHeader header_;
  codec::CodecKind codec_ = codec::CodecKind::kIdentity;
};

Result<ObjectHeader> parse_header(Bytes start) {
  if (start.size() < sizeof(layout::Header)) {
    return damaged(
        fmt::format("this object is no data object: it has only {} bytes", start.size()));
  }
  Result<ObjectHeader> header = layout::decode(wire_read<layout::Header>(start));
  if (header) return header;
  return Error(header.error().code(), "this object " + header.error().context());
}

Result<void> Directory::open_frame(uint32_t index, Bytes stored, MutableBytes plain) const {
  USBD_ASSERT(index < contents_.frames.size());
  return opener_->open(index, contents_.frames[index], stored, plain);
}

Result<Tail> parse_tail(const VolumeSeal& seal, const ObjectId& id, Bytes tail,
                        uint64_t object_bytes) {
  USBD_ASSERT(tail.size() <= object_bytes);
  Result<Tail> parsed = TailParser(seal, id, tail, object_bytes).run();
  if (parsed) return parsed;
  return Error(parsed.error().code(),
               fmt::format("data object {} {}", to_text(id), parsed.error().context()));
}

}  // namespace usbd::objstore
