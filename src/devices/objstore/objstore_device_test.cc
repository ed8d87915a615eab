// SPDX-License-Identifier: Apache-2.0
//
// The device on a real loop, with a store in memory and its journal in a directory: parts of
// blocks, the end of an odd size, extents, how it ends. That it keeps its data is the business of
// tests/conformance and tests/sim.

#include "devices/objstore/objstore_device.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/kernel_folder.h"
#include "async/testing.h"
#include "devices/objstore/journal_sealer.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::byte> bytes_of(uint64_t seed, size_t size) {
  std::vector<std::byte> bytes(size);
  SeededRng(seed).fill(bytes);
  return bytes;
}

class ObjstoreDeviceTest : public ::testing::Test {
 protected:
  ObjstoreDeviceTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "objstore_device_test.XXXXXX";
    directory = ::mkdtemp(pattern.data());
    options.name = "vol";
    options.size = 1U << 20;
    options.journal_bytes = 8U << 20;
  }
  ~ObjstoreDeviceTest() override {
    if (device) {
      EXPECT_TRUE(loop.run(device->close()));
    }
    std::filesystem::remove_all(directory);
  }

  Result<void> open() {
    ObjstoreDevice::Parts parts;
    parts.rng = std::make_unique<SystemRng>();
    parts.store = std::make_unique<objects::MemoryStore>(bucket);
    if (!options.read_only) {
      USBD_TRY(parts.folder, KernelFolder::open_directory(directory, loop.pool()));
    }
    const auto key = bytes_of(key_seed, 32);
    if (options.cipher != crypto::CipherMode::kIdentity) parts.key = crypto::Secret(Bytes(key));
    USBD_TRY(device, loop.run(ObjstoreDevice::open(std::move(parts), options)));
    return {};
  }
  Result<void> close() {
    Result<void> closed = loop.run(device->close());
    ending = device->ending();
    device.reset();
    return closed;
  }
  void reopen() {
    ASSERT_TRUE(close());
    ASSERT_TRUE(open());
  }

  Result<void> write(uint64_t offset, const std::vector<std::byte>& data) {
    return loop.run(device->write(offset, data, WriteFlags{}));
  }
  std::vector<std::byte> read(uint64_t offset, size_t size) {
    std::vector<std::byte> data(size);
    const Result<void> done = loop.run(device->read(offset, data));
    EXPECT_TRUE(done) << done.error().message();
    return data;
  }
  std::vector<usbd::Extent> extents(ByteRange range, size_t most = 100) {
    Result<std::vector<usbd::Extent>> found = loop.run(device->extents(range, most));
    EXPECT_TRUE(found);
    return found ? *found : std::vector<usbd::Extent>();
  }

  usbd::testing::TestLoop loop;
  std::string directory;
  std::shared_ptr<objects::MemoryContainer> bucket = std::make_shared<objects::MemoryContainer>();
  VolumeOptions options;
  uint64_t key_seed = 9;
  std::unique_ptr<ObjstoreDevice> device;
  ObjstoreDevice::Ending ending = ObjstoreDevice::Ending::kPublished;
};

TEST_F(ObjstoreDeviceTest, ShowsWhatTheVolumeIs) {
  options.logical_block_size = 512;
  options.size = (1U << 20) + 512;
  ASSERT_TRUE(open());
  EXPECT_EQ(device->geometry().size, (1U << 20) + 512);
  EXPECT_EQ(device->geometry().block_size, 512U);
  EXPECT_EQ(device->geometry().logical_block_size, 512U);
  EXPECT_EQ(device->capabilities().trim, Support::kNative);
  EXPECT_TRUE(device->capabilities().volatile_cache);
  EXPECT_EQ(device->name(), "objstore:vol");
  EXPECT_TRUE(device->created());
  reopen();
  EXPECT_FALSE(device->created());
}

TEST_F(ObjstoreDeviceTest, KeepsTheLastBytesOfAnOddSize) {
  options.logical_block_size = 512;
  options.size = (64U << 10) + 1536;
  ASSERT_TRUE(open());
  const auto data = bytes_of(1, 5 * 512);  // from the last whole block into the part of one
  const uint64_t offset = options.size - data.size();
  ASSERT_TRUE(write(offset, data));
  EXPECT_EQ(read(offset, data.size()), data);
  reopen();
  EXPECT_EQ(read(offset, data.size()), data);
  EXPECT_EQ(read(offset - 512, 512), std::vector<std::byte>(512));
}

TEST_F(ObjstoreDeviceTest, ChangesOnlyTheSectorsOfARequest) {
  options.logical_block_size = 512;
  ASSERT_TRUE(open());
  auto expected = bytes_of(2, 5 * 4096);
  ASSERT_TRUE(write(0, expected));
  const auto patch = bytes_of(3, 2 * 4096 + 1024);
  ASSERT_TRUE(write(3584, patch));
  std::ranges::copy(patch, expected.begin() + 3584);
  EXPECT_EQ(read(0, expected.size()), expected);
  ASSERT_TRUE(loop.run(device->trim(ByteRange(512, 4096), WriteFlags{.fua = true})));
  std::fill_n(expected.begin() + 512, 4096, std::byte{});
  EXPECT_EQ(read(0, expected.size()), expected);
  ASSERT_TRUE(loop.run(device->write_zeroes(ByteRange(8704, 512), ZeroFlags{})));
  std::fill_n(expected.begin() + 8704, 512, std::byte{});
  EXPECT_EQ(read(8704, 512), std::vector<std::byte>(512));
  EXPECT_EQ(read(0, expected.size()), expected);
}

Task<Result<void>> write_two_sectors(ObjstoreDevice& device, Bytes first, Bytes second) {
  Scope both;
  Result<void> results[2];
  const auto one = [](ObjstoreDevice& on, uint64_t offset, Bytes data,
                      Result<void>& result) -> Task<void> {
    result = co_await on.write(offset, data, WriteFlags{});
  };
  both.spawn(one(device, 0, first, results[0]));
  both.spawn(one(device, 512, second, results[1]));
  co_await both.close();
  co_return results[0] ? results[1] : results[0];
}

TEST_F(ObjstoreDeviceTest, KeepsNeighboursInOneBlockApart) {
  options.logical_block_size = 512;
  ASSERT_TRUE(open());
  for (uint64_t round = 0; round < 20; ++round) {
    const auto first = bytes_of(100 + round, 512);
    const auto second = bytes_of(200 + round, 512);
    ASSERT_TRUE(loop.run(write_two_sectors(*device, first, second)));
    EXPECT_EQ(read(0, 512), first);
    EXPECT_EQ(read(512, 512), second);
  }
}

TEST_F(ObjstoreDeviceTest, ReadsAtOnceOnlyWholeBlocks) {
  options.logical_block_size = 512;
  ASSERT_TRUE(open());
  auto data = bytes_of(1, 2 * 4096);
  EXPECT_TRUE(device->try_read(0, data).has_value());
  EXPECT_EQ(data, std::vector<std::byte>(2 * 4096)) << "nothing was written yet";
  EXPECT_FALSE(device->try_read(512, data).has_value());
  EXPECT_FALSE(device->try_read(0, MutableBytes(data).first(512)).has_value());
}

TEST_F(ObjstoreDeviceTest, KnowsWhereItsDataIs) {
  ASSERT_TRUE(open());
  ASSERT_TRUE(write(8192, bytes_of(4, 4096)));
  const uint64_t size = device->geometry().size;
  const usbd::Extent hole{.length = 8192, .hole = true, .zero = true};
  const usbd::Extent data{.length = 4096};
  const usbd::Extent rest{.length = size - 12288, .hole = true, .zero = true};
  EXPECT_THAT(extents(ByteRange(0, size)), ElementsAre(hole, data, rest));
  EXPECT_THAT(extents(ByteRange(0, size), 2), ElementsAre(hole, data));
  reopen();
  EXPECT_THAT(extents(ByteRange(0, size)), ElementsAre(hole, data, rest));
}

TEST_F(ObjstoreDeviceTest, ReadsWithoutAJournalWhatWasPublished) {
  ASSERT_TRUE(open());
  const auto data = bytes_of(5, 8192);
  ASSERT_TRUE(write(4096, data));
  ASSERT_TRUE(close());
  options.read_only = true;
  ASSERT_TRUE(open());
  EXPECT_TRUE(device->capabilities().read_only);
  EXPECT_EQ(device->capabilities().trim, Support::kNone);
  EXPECT_EQ(read(4096, data.size()), data);
  EXPECT_TRUE(loop.run(device->flush()));
}

TEST_F(ObjstoreDeviceTest, HurriedLeavesTheRestInTheJournal) {
  options.flush_every = Nanos(0);
  ASSERT_TRUE(open());
  const auto data = bytes_of(6, 4096);
  ASSERT_TRUE(write(0, data));
  device->hurry();
  const Result<void> closed = close();
  EXPECT_FALSE(closed);
  EXPECT_EQ(ending, ObjstoreDevice::Ending::kUnpublished);
  ASSERT_TRUE(open());
  EXPECT_EQ(read(0, 4096), data);
  ASSERT_TRUE(close());
  EXPECT_EQ(ending, ObjstoreDevice::Ending::kPublished);
}

TEST_F(ObjstoreDeviceTest, TellsOnceThatItWasTakenOver) {
  ASSERT_TRUE(open());
  ASSERT_TRUE(write(0, bytes_of(7, 4096)));
  int told = 0;
  device->on_taken_over([&told] { ++told; });
  const std::unique_ptr<ObjstoreDevice> first = std::move(device);
  const std::string kept = std::exchange(directory, directory + "/other");
  std::filesystem::create_directory(directory);
  options.takeover = true;
  ASSERT_TRUE(open());
  const Result<void> closed = loop.run(first->close());
  ASSERT_FALSE(closed);
  EXPECT_TRUE(closed.error().is(Errc::kPerm)) << closed.error().message();
  EXPECT_EQ(first->ending(), ObjstoreDevice::Ending::kTakenOver);
  EXPECT_EQ(told, 1);
  first->on_taken_over([&told] { ++told; });
  EXPECT_EQ(told, 2);
  ASSERT_TRUE(close());
  directory = kept;
}

TEST_F(ObjstoreDeviceTest, LeavesTheJournalOfALivingProcessAlone) {
  ASSERT_TRUE(open());
  const std::unique_ptr<ObjstoreDevice> first = std::move(device);
  const std::string kept = std::exchange(directory, directory + "/other");
  std::filesystem::create_directory(directory);
  options.takeover = true;
  ASSERT_TRUE(open());
  ASSERT_TRUE(close());
  directory = kept;  // where the first one, which has not noticed yet, still writes
  const Result<void> opened = open();
  ASSERT_FALSE(opened);
  EXPECT_TRUE(opened.error().is(Errc::kBusy)) << opened.error().message();
  EXPECT_FALSE(loop.run(first->close()));
  ASSERT_TRUE(open());
}

TEST_F(ObjstoreDeviceTest, IsNotMadeAnewWhereAJournalIsLeft) {
  ASSERT_TRUE(open());
  ASSERT_TRUE(close());
  bucket = std::make_shared<objects::MemoryContainer>();  // it is lost, or was mistyped
  const Result<void> opened = open();
  ASSERT_FALSE(opened);
  EXPECT_TRUE(opened.error().is(Errc::kExists));
  EXPECT_THAT(opened.error().message(), HasSubstr("No new volume is made in its place"));
  std::filesystem::remove_all(directory);
  std::filesystem::create_directory(directory);
  EXPECT_TRUE(open());
}

TEST_F(ObjstoreDeviceTest, IsNotOpenedWithAnotherKeyOrSize) {
  ASSERT_TRUE(open());
  ASSERT_TRUE(close());
  options.size = 2U << 20;
  options.size_is_explicit = true;
  const Result<void> larger = open();
  ASSERT_FALSE(larger);
  EXPECT_THAT(larger.error().message(), HasSubstr("2097152"));
  options.size_is_explicit = false;
  key_seed = 10;
  const Result<void> wrong = open();
  ASSERT_FALSE(wrong);
  EXPECT_TRUE(wrong.error().is(Errc::kAccess));
}

TEST(JournalSealers, GiveEachSessionAKeyOfItsOwn) {
  const auto key = bytes_of(1, 32);
  const journal::SealerSource sealers = journal_sealers(key);
  journal::Salt one{};
  journal::Salt two{};
  two[0] = std::byte{1};
  const journal::Sealer::Nonce nonce{};
  const auto plain = bytes_of(2, 4096);
  const auto aad = bytes_of(3, 20);
  std::vector<std::byte> sealed(plain.size());
  std::vector<std::byte> opened(plain.size());
  const journal::Tag tag = sealers(one)->seal(nonce, aad, plain, sealed);
  EXPECT_NE(sealed, plain);
  EXPECT_TRUE(sealers(one)->open(nonce, aad, sealed, tag, opened));
  EXPECT_EQ(opened, plain);
  EXPECT_FALSE(sealers(two)->open(nonce, aad, sealed, tag, opened));
  sealed[100] ^= std::byte{1};
  EXPECT_FALSE(sealers(one)->open(nonce, aad, sealed, tag, opened));
}

}  // namespace
}  // namespace usbd::objstore
