// SPDX-License-Identifier: Apache-2.0
//
// The worked example of docs/formats/journal.md is what the code writes: this test makes that
// journal and compares the dumps, line by line. When they differ it prints what belongs there.

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/fault_file.h"
#include "async/sim_loop.h"
#include "journal/journal.h"

namespace usbd::journal {
namespace {

class SameBytes final : public Rng {
 public:
  uint64_t next() override { return 0x5a5a5a5a5a5a5a5a; }
  void fill(MutableBytes data) override { std::ranges::fill(data, std::byte(0x5a)); }
};

Id repeated(unsigned value) {
  Id id;
  id.fill(static_cast<std::byte>(value));
  return id;
}

/// The example: one write of a block, one trim of 256 blocks, and a clean end.
Task<Result<void>> make_example(usbd::testing::FaultDisk& disk, Rng& rng) {
  std::unique_ptr<BlockFile> file = disk.open();
  const Identity identity{.volume = repeated(0x11), .journal = repeated(0x22)};
  USBD_CO_TRY_VOID(co_await Journal::format(*file, identity, 32 * kBlock, 6));
  Options options;
  options.payload_blocks_max = 4;
  USBD_CO_TRY(const std::unique_ptr<Journal> journal,
              co_await Journal::open(std::move(file), rng, std::move(options)));
  USBD_CO_TRY_VOID(co_await journal->replay([](const Entry&, const Place&) {}));
  USBD_CO_TRY_VOID(co_await journal->begin(7, 1));
  const std::vector<std::byte> block(kBlock, std::byte('A'));
  journal->append({.number = 1, .block = 5, .blocks = 1, .kind = 1, .has_payload = true}, block);
  journal->append({.number = 2, .block = 512, .blocks = 256, .kind = 2}, {});
  USBD_CO_TRY_VOID(co_await journal->sync());
  co_return co_await journal->close();
}

/// Lines of 16 bytes, with their offset; rows of zeros at the end are left out.
std::string dump(Bytes bytes, uint64_t offset) {
  size_t end = bytes.size();
  while (end > 0 && bytes[end - 1] == std::byte(0)) --end;
  std::string text;
  for (size_t at = 0; at < end; at += 16) {
    std::string shown;
    text += fmt::format("{:06x} ", offset + at);
    for (const std::byte byte : bytes.subspan(at, 16)) {
      const auto value = std::to_integer<unsigned char>(byte);
      text += fmt::format(" {:02x}", value);
      shown += std::isprint(value) != 0 ? static_cast<char>(value) : '.';
    }
    text += "  " + shown + "\n";
  }
  return text;
}

/// The fenced block behind the line `<!-- dump: NAME -->`.
std::string documented(const std::string& name) {
  const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
  std::ifstream file(root / "docs/formats/journal.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string fence = "```\n";
  size_t start = text.find("<!-- dump: " + name + " -->");
  start = start == std::string::npos ? start : text.find(fence, start);
  if (start == std::string::npos) return "no dump of " + name;
  start += fence.size();
  return text.substr(start, text.find(fence, start) - start);
}

TEST(JournalDocument, ShowsWhatTheCodeWrites) {
  usbd::testing::FaultDisk disk({.size = 0, .block_size = 1});
  SameBytes rng;
  SimLoop loop({.seed = 1});
  const auto made = loop.run(make_example(disk, rng));
  ASSERT_TRUE(made && *made);
  std::vector<std::byte> bytes(kRingStart + 3 * kBlock);
  const std::unique_ptr<BlockFile> file = disk.open();
  const auto read = loop.run(file->read(0, bytes));
  ASSERT_TRUE(read && *read);
  EXPECT_EQ(documented("superblock"), dump(Bytes(bytes).first(kBlock), 0));
  EXPECT_EQ(documented("record"), dump(Bytes(bytes).subspan(kRingStart, kBlock), kRingStart));
}

}  // namespace
}  // namespace usbd::journal
