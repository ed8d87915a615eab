// SPDX-License-Identifier: Apache-2.0
//
// The worked example of docs/formats/checkpoint.md: one object, byte for byte. It fails if the
// format changes; what was stored before must then still be readable. scripts/tidy compares the
// page with the dump here.

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/object_table.h"

namespace usbd::objstore {
namespace {

constexpr std::string_view kDump = R"(
0000  75 73 62 64 6d 61 70 0a 01 00 00 00 00 00 00 00
0010  11 11 11 11 11 11 11 11 11 11 11 11 11 11 11 11
0020  02 00 00 00 00 00 00 00 2a 00 00 00 00 00 00 00
0030  55 55 55 55 55 55 55 55 55 55 55 55 55 55 55 55
0040  55 55 55 55 55 55 55 55 55 55 55 55 55 55 55 55
0050  00 00 00 00 00 00 00 00 00 00 00 00 d0 16 72 9a
0060  00 00 00 00 00 00 00 00 4c 00 00 00 4c 00 00 00
0070  01 00 00 00 5e 0e 94 4e 0c 00 00 00 00 00 00 00
0080  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
0090  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
00a0  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
00b0  00 00 00 00 00 00 00 00 05 00 03 00 01 00 00 00
00c0  00 00 00 00 74 27 52 d7 01 00 00 00 00 00 00 00
00d0  48 00 00 00 48 00 00 00 02 00 00 00 df 4b 58 39
00e0  01 00 01 01 00 00 00 00 03 00 00 00 03 00 00 00
00f0  01 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
0100  70 11 00 00 00 00 00 00 04 10 00 00 00 00 00 00
0110  0c 00 00 00 00 00 00 00 0e 00 00 00 00 00 00 00
0120  00 00 00 00 00 00 00 00 29 13 1c 5a 02 00 00 00
0130  00 00 00 00 b4 00 00 00 b4 00 00 00 03 00 00 00
0140  38 72 c6 75 01 00 20 00 00 04 00 00 00 10 00 00
0150  00 04 00 00 09 00 00 00 00 00 00 00 d0 07 00 00
0160  00 00 00 00 07 00 00 00 00 00 00 00 0e 00 00 00
0170  00 00 00 00 01 00 00 00 01 00 00 00 01 00 00 00
0180  00 00 00 00 00 00 00 00 04 00 00 00 02 00 00 00
0190  00 00 00 00 2a 00 00 00 00 00 00 00 55 55 55 55
01a0  55 55 55 55 55 55 55 55 55 55 55 55 55 55 55 55
01b0  55 55 55 55 55 55 55 55 55 55 55 55 02 00 00 00
01c0  02 00 00 00 00 00 00 00 00 00 00 00 60 00 00 00
01d0  68 00 00 00 4c 00 00 00 00 00 00 00 00 00 00 00
01e0  00 00 00 00 c8 00 00 00 64 00 00 00 48 00 00 00
01f0  01 00 00 00 68 68 68 68 f4 7a 0a 61
)";

std::string dump(Bytes bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    text += fmt::format("{:04x} ", at);
    for (const std::byte byte : bytes.subspan(at, std::min<size_t>(16, bytes.size() - at))) {
      text += fmt::format(" {:02x}", std::to_integer<unsigned>(byte));
    }
    text += '\n';
  }
  return text;
}

/// Log object 7 of epoch 1 has three blocks of the volume, from block 5 on; that is all.
std::vector<std::byte> example() {
  BlockMap map(2000);
  ObjectTable table;
  const uint32_t slot = *table.add({.id = {.epoch = 1, .seq = 7, .kind = ObjectKind::kData},
                                    .object_bytes = 4464,
                                    .stored_bytes = 4100,
                                    .blocks = 3,
                                    .first_write = 12,
                                    .last_write = 14});
  map.set({5, 3}, {slot, 0}, [](uint32_t, uint32_t) {});
  table.add_live(slot, 3);

  VolumeSeal seal;
  std::ranges::fill(seal.volume, std::byte{0x11});
  const MapObjectId id{.epoch = 2, .id = 42};
  ObjectSalt salt;
  std::ranges::fill(salt, std::byte{0x55});
  PieceWriter object = *PieceWriter::create(seal, id, salt);
  CheckpointRoot root{.number = 9, .blocks = 2000, .last_seq = 7, .last_write = 14};
  const PieceLabel map_page{.kind = PieceKind::kMapPage, .page = 0};
  root.map_pages = {{0, object.add(map_page, {}, encode_map_page(map, 0))}};
  const PieceLabel table_page{.kind = PieceKind::kTablePage, .page = 0};
  root.table_pages = {{0, object.add(table_page, {}, table.encode_page(0))}};
  root.objects = {{.id = id, .salt = salt, .pages = 2, .live = 2}};
  root.head.assign(4, std::byte{'h'});
  object.add({.kind = PieceKind::kRoot, .page = 0}, {}, *encode_root(root));
  return {object.bytes().begin(), object.bytes().end()};
}

TEST(CheckpointFormat, IsThatOfTheWorkedExample) {
  EXPECT_EQ(dump(example()), kDump.substr(1));
}

}  // namespace
}  // namespace usbd::objstore
