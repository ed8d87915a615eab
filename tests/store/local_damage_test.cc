// SPDX-License-Identifier: Apache-2.0
//
// Files of objects that were cut, extended, changed or mixed: found, and named. The one thing that
// this kind of store lets pass is a change inside the contents when only a part of them is read.

#include <algorithm>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "objects/local/testing.h"

namespace usbd::objects::testing {
namespace {

namespace fs = std::filesystem;
using FileBytes = std::vector<char>;

constexpr size_t kContents = 1500;
constexpr int kMutations = 4000;

class LocalDamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = *folder_.open(loop_, rng_);
    seeded_.fill(data_);
    ASSERT_TRUE(loop_.run(store_->put("d/victim", data_, Condition::always(), CallLimits())));
    std::ifstream file(path_, std::ios::binary);
    whole_.assign(std::istreambuf_iterator<char>(file), {});
    ASSERT_EQ(whole_.size(), kContents + sizeof(ObjectTrailer));
  }
  void TearDown() override { loop_.run(store_->close()); }

  void write(const FileBytes& bytes) const {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  Result<Fetched> get(Part part) { return loop_.run(store_->get("d/victim", part, CallLimits())); }
  /// Expects that the damage is found by every call that looks into the file.
  void expect_found(const FileBytes& bytes, const std::string& how, bool in_contents = false) {
    write(bytes);
    const Result<Fetched> got = get(Part::whole(UINT64_MAX));
    ASSERT_FALSE(got) << how;
    EXPECT_TRUE(got.error().is(Errc::kDamaged)) << how;
    EXPECT_NE(got.error().message().find("d/victim"), std::string::npos) << got.error().message();
    if (in_contents) return;
    EXPECT_FALSE(get(Part::tail(100))) << how;
    EXPECT_FALSE(get(Part::range(0, 10))) << how;
    EXPECT_FALSE(loop_.run(store_->head("d/victim", CallLimits()))) << how;
    Condition condition = Condition::matches("0123456789abcdef0123456789abcdef");
    const Result<std::string> done =
        loop_.run(store_->put("d/victim", data_, std::move(condition), CallLimits()));
    EXPECT_TRUE(!done && done.error().is(Errc::kDamaged)) << how;
  }

  LocalFolder folder_;
  SystemRng rng_;
  SeededRng seeded_{77};
  usbd::testing::TestLoop loop_;
  std::unique_ptr<LocalStore> store_;
  std::vector<std::byte> data_ = std::vector<std::byte>(kContents);
  const fs::path path_ = folder_.file_of("d/victim");
  FileBytes whole_;
};

TEST_F(LocalDamageTest, FindsEveryTruncation) {
  for (size_t size = 0; size < whole_.size(); size += size < kContents - 5 ? 13 : 1) {
    expect_found(FileBytes(whole_.begin(), whole_.begin() + static_cast<ptrdiff_t>(size)),
                 fmt::format("cut to {}", size));
  }
}

TEST_F(LocalDamageTest, FindsEveryExtension) {
  for (const size_t more : {1U, 7U, 47U, 48U, 49U, 4096U}) {
    for (const char fill : {'\0', 'x'}) {
      FileBytes bytes = whole_;
      bytes.insert(bytes.end(), more, fill);
      expect_found(bytes, fmt::format("{} bytes more", more));
    }
  }
  FileBytes twice = whole_;
  twice.insert(twice.end(), whole_.begin(), whole_.end());
  expect_found(twice, "twice");
  FileBytes trailer_again = whole_;
  trailer_again.insert(trailer_again.end(), whole_.end() - sizeof(ObjectTrailer), whole_.end());
  expect_found(trailer_again, "two trailers");
  FileBytes shorter = whole_;
  shorter.erase(shorter.begin(), shorter.begin() + 512);
  expect_found(shorter, "without its first 512 bytes");
}

TEST_F(LocalDamageTest, FindsEveryChangedBitWhenAllIsRead) {
  for (size_t at = 0; at < whole_.size(); ++at) {
    FileBytes bytes = whole_;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << seeded_.below(8)));
    expect_found(bytes, fmt::format("a bit of byte {}", at), at < kContents);
  }
}

TEST_F(LocalDamageTest, FindsRandomMutations) {
  for (int i = 0; i < kMutations && !HasFailure(); ++i) {
    FileBytes bytes = whole_;
    for (uint64_t changes = seeded_.between(1, 4); changes > 0; --changes) {
      const auto at = static_cast<ptrdiff_t>(seeded_.below(bytes.size()));
      const auto length = static_cast<ptrdiff_t>(
          seeded_.below(std::min<uint64_t>(64, bytes.size() - static_cast<size_t>(at))) + 1);
      switch (seeded_.below(4)) {
        case 0:
          bytes[static_cast<size_t>(at)] = static_cast<char>(seeded_.next());
          break;
        case 1:
          if (static_cast<size_t>(length) < bytes.size()) {
            bytes.erase(bytes.begin() + at, bytes.begin() + at + length);
          }
          break;
        case 2:
          bytes.insert(bytes.begin() + at, static_cast<size_t>(length),
                       static_cast<char>(seeded_.next()));
          break;
        default:
          std::fill_n(bytes.begin() + at, length, '\0');
      }
    }
    if (bytes == whole_) continue;
    write(bytes);
    const Result<Fetched> got = get(Part::whole(UINT64_MAX));
    EXPECT_FALSE(got) << "mutation " << i;
  }
}

TEST_F(LocalDamageTest, LetsOnlyChangedContentsPassWhenAPartIsRead) {
  // Documented in object_file.h: who reads parts has sealed what is in them.
  FileBytes bytes = whole_;
  bytes[700] = static_cast<char>(bytes[700] ^ 1);
  write(bytes);
  EXPECT_TRUE(get(Part::range(600, 200)));
  EXPECT_FALSE(get(Part::range(0, kContents)));
  EXPECT_FALSE(get(Part::tail(kContents)));
}

TEST_F(LocalDamageTest, ReplacesAndRemovesWhatIsDamaged) {
  write(FileBytes(10, 'x'));
  EXPECT_TRUE(loop_.run(store_->put("d/victim", data_, Condition::always(), CallLimits())));
  EXPECT_TRUE(get(Part::whole(kContents)));
  write(FileBytes(10, 'x'));
  EXPECT_TRUE(loop_.run(store_->remove("d/victim", CallLimits())));
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(LocalDamageTest, SaysThatANewerVersionIsNeeded) {
  FileBytes bytes = whole_;
  ObjectTrailer trailer{};
  std::memcpy(&trailer, bytes.data() + kContents, sizeof(trailer));
  trailer.version = 2;
  trailer.trailer_crc = crc32c(wire_bytes(trailer).first(sizeof(trailer) - 4));
  std::memcpy(bytes.data() + kContents, &trailer, sizeof(trailer));
  write(bytes);
  const Result<Fetched> got = get(Part::whole(kContents));
  ASSERT_FALSE(got);
  EXPECT_NE(got.error().message().find("version 2"), std::string::npos) << got.error().message();
}

}  // namespace
}  // namespace usbd::objects::testing
