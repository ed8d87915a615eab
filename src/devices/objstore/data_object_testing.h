// SPDX-License-Identifier: Apache-2.0
//
// For tests: objects as somebody would make them who has the key and no good intent, or who can
// compute checksums and nothing else; and a reader that opens everything an object has.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/crc32c.h"
#include "devices/objstore/data_object_layout.h"
#include "devices/objstore/data_object_reader.h"

namespace usbd::objstore {

using ByteVector = std::vector<std::byte>;

/// What an object says, all of it.
struct Contents {
  ObjectHeader header;
  std::vector<Extent> extents;
  std::vector<Source> sources;
  /// The data blocks, by position.
  ByteVector blocks;

  friend bool operator==(const Contents&, const Contents&) = default;
};

/// Reads the object as the volume does: its tail, then its frames.
inline Result<Contents> read_object(const VolumeSeal& seal, const ObjectId& id, Bytes object) {
  Tail tail;
  for (size_t size = std::min<size_t>(object.size(), limits::kObjectTailBytes);
       !tail.directory.has_value(); size = tail.missing.length) {
    USBD_TRY(tail, parse_tail(seal, id, object.last(size), object.size()));
  }
  const Directory& directory = *tail.directory;
  Contents contents{.header = directory.header(),
                    .extents = directory.extents(),
                    .sources = directory.sources(),
                    .blocks = {}};
  for (uint32_t i = 0; i < directory.frames().size(); ++i) {
    const FrameInfo& info = directory.frames()[i];
    contents.blocks.resize(contents.blocks.size() + info.logical);
    USBD_TRY_VOID(directory.open_frame(i, object.subspan(info.offset, info.stored),
                                       MutableBytes(contents.blocks).last(info.logical)));
  }
  return contents;
}

/// Changes the footer as `change` says and makes its two checksums right.
template <typename Change>
void change_footer(ByteVector& object, const Change& change) {
  auto footer = wire_read<layout::Footer>(Bytes(object).last(sizeof(layout::Footer)));
  change(footer);
  layout::Header& header = footer.facts.header;
  header.crc = crc32c(wire_bytes(header).first(offsetof(layout::Header, crc)));
  footer.crc = crc32c(wire_bytes(footer).first(offsetof(layout::Footer, crc)));
  std::ranges::copy(wire_bytes(footer), object.end() - sizeof(layout::Footer));
}

/// An object whose directory is `plain`, rightly sealed, and whose frames are `frames`.
inline ByteVector forge_object(const VolumeSeal& seal, const ObjectHeader& header, Bytes frames,
                               Bytes plain) {
  const auto sealer = *layout::make_object_sealer(seal, header.id, header.salt);
  layout::Footer footer{};
  footer.facts.header = layout::encode(header);
  footer.facts.directory_offset = sizeof(layout::Header) + frames.size();
  footer.facts.directory_plain = static_cast<uint32_t>(plain.size());
  footer.facts.directory_stored = static_cast<uint32_t>(plain.size() + sealer->tag_size());
  footer.facts.object_bytes =
      footer.facts.directory_offset + footer.facts.directory_stored + sizeof(layout::Footer);
  ByteVector object;
  const auto append = [&object](Bytes bytes) {
    object.insert(object.end(), bytes.begin(), bytes.end());
  };
  append(wire_bytes(footer.facts.header));
  append(frames);
  ByteVector directory(footer.facts.directory_stored);
  sealer->seal(layout::kDirectoryIndex, {wire_bytes(footer.facts)}, plain,
               MutableBytes(directory).first(plain.size()),
               MutableBytes(directory).subspan(plain.size()));
  append(directory);
  footer.directory_crc = crc32c(directory);
  footer.magic = layout::kFooterMagic;
  append(wire_bytes(footer));
  change_footer(object, [](layout::Footer&) {});
  return object;
}

}  // namespace usbd::objstore
