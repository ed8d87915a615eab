// SPDX-License-Identifier: Apache-2.0
//
// The worked example of docs/formats/data-object.md: one object, byte for byte. It fails if the
// format changes; what was stored before must then still be readable. scripts/tidy compares the
// page with the dump here.

#include <algorithm>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "devices/objstore/data_object_testing.h"
#include "devices/objstore/data_object_writer.h"

namespace usbd::objstore {
namespace {

constexpr std::string_view kDump = R"(
00000000  75 73 62 64 6f 62 6a 0a  01 00 01 00 00 0c 04 00  |usbdobj.........|
00000010  11 11 11 11 11 11 11 11  11 11 11 11 11 11 11 11  |................|
00000020  02 00 00 00 00 00 00 00  2a 00 00 00 00 00 00 00  |........*.......|
00000030  55 55 55 55 55 55 55 55  55 55 55 55 55 55 55 55  |UUUUUUUUUUUUUUUU|
*
00000050  01 00 00 00 00 00 00 00  02 00 00 00 01 00 00 00  |................|
00000060  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000070  00 00 00 00 00 00 00 00  00 00 00 00 8b 90 83 18  |................|
00000080  41 41 41 41 41 41 41 41  41 41 41 41 41 41 41 41  |AAAAAAAAAAAAAAAA|
*
00001080  a2 37 79 32 0c 00 00 00  00 00 00 00 0d 00 00 00  |.7y2............|
00001090  00 00 00 00 04 10 00 00  00 10 00 00 5e 35 ed cd  |............^5..|
000010a0  00 00 00 00 05 00 00 00  00 00 00 01 01 00 00 00  |................|
000010b0  00 01 00 00 00 00 00 02  03 00 00 00 09 c2 5f 26  |.............._&|
000010c0  75 73 62 64 6f 62 6a 0a  01 00 01 00 00 0c 04 00  |usbdobj.........|
000010d0  11 11 11 11 11 11 11 11  11 11 11 11 11 11 11 11  |................|
000010e0  02 00 00 00 00 00 00 00  2a 00 00 00 00 00 00 00  |........*.......|
000010f0  55 55 55 55 55 55 55 55  55 55 55 55 55 55 55 55  |UUUUUUUUUUUUUUUU|
*
00001110  01 00 00 00 00 00 00 00  02 00 00 00 01 00 00 00  |................|
00001120  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00001130  00 00 00 00 00 00 00 00  00 00 00 00 8b 90 83 18  |................|
00001140  70 11 00 00 00 00 00 00  84 10 00 00 00 00 00 00  |p...............|
00001150  3c 00 00 00 38 00 00 00  00 00 00 00 00 00 00 00  |<...8...........|
00001160  f0 b7 72 eb 9e 60 4c ba  0a 75 73 62 64 65 6e 64  |..r..`L..usbdend|
00001170
)";

/// As `hexdump -C` prints it: lines that repeat are one `*`.
std::string dump(Bytes bytes) {
  std::string text;
  bool starred = false;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    const Bytes line = bytes.subspan(at, std::min<size_t>(16, bytes.size() - at));
    if (at >= 16 && line.size() == 16 && std::ranges::equal(line, bytes.subspan(at - 16, 16))) {
      if (!starred) text += "*\n";
      starred = true;
      continue;
    }
    starred = false;
    std::string hex;
    std::string letters;
    for (size_t i = 0; i < line.size(); ++i) {
      const auto byte = std::to_integer<unsigned char>(line[i]);
      hex += fmt::format("{}{:02x}", i == 8 ? "  " : " ", byte);
      letters += byte >= ' ' && byte <= '~' ? static_cast<char>(byte) : '.';
    }
    text += fmt::format("{:08x} {:<49}  |{}|\n", at, hex, letters);
  }
  return text + fmt::format("{:08x}\n", bytes.size());
}

/// Write 12 put a block of the letter A at block 5; write 13 trimmed three blocks from block 256
/// on.
ByteVector example() {
  DataObjectWriter::Facts facts{.id = {.epoch = 2, .seq = 42}, .first_write = 12, .last_write = 13};
  std::ranges::fill(facts.salt, std::byte{0x55});
  VolumeSeal seal;
  std::ranges::fill(seal.volume, std::byte{0x11});
  DataObjectWriter writer = *DataObjectWriter::create(seal, facts);
  writer.add_data(5, ByteVector(kBlockBytes, std::byte{'A'}));
  writer.add_empty(256, 3, ExtentKind::kTrim);
  return writer.finish();
}

TEST(DataObjectFormat, IsThatOfTheWorkedExample) {
  EXPECT_EQ(dump(example()), kDump.substr(1));
}

}  // namespace
}  // namespace usbd::objstore
