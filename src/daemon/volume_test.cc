// SPDX-License-Identifier: Apache-2.0
//
// Which volumes are opened, made or refused. Reading and writing them is the devices' own tests'.

#include "daemon/volume.h"

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/objstore_volume.h"

namespace usbd::daemon {
namespace {

using testing::HasSubstr;

class Volume : public testing::Test {
 public:
  ~Volume() override { std::filesystem::remove_all(settings.directory); }

 protected:
  Volume() : runtime(*Runtime::start({.loops = 1})) {
    std::string pattern = std::filesystem::temp_directory_path() / "volume_test.XXXXXX";
    settings.directory = ::mkdtemp(pattern.data());
    settings.name = "vol";
    settings.size = 1U << 20;
  }

  /// Opens the volume, closes it, and returns its size.
  uint64_t opened() {
    Result<OpenedVolume> volume = runtime->run(open_volume(settings, *runtime));
    EXPECT_TRUE(volume) << volume.error().message();
    if (!volume) return 0;
    const uint64_t size = volume->device->geometry().size;
    EXPECT_TRUE(runtime->run(volume->device->close()));
    return size;
  }
  std::string refused() {
    Result<OpenedVolume> volume = runtime->run(open_volume(settings, *runtime));
    EXPECT_FALSE(volume);
    return volume ? "" : volume.error().message();
  }

  std::unique_ptr<Runtime> runtime;
  VolumeSettings settings;
};

TEST_F(Volume, OfMemoryIsRoundedUpToItsBlocks) {
  settings.size = 4097;
  EXPECT_EQ(opened(), 8192U);
  settings.block_size = 512;
  EXPECT_EQ(opened(), 4608U);
}

TEST_F(Volume, OfMemoryIsNeverThereBefore) {
  settings.create = VolumeSettings::Create::kNever;
  EXPECT_THAT(refused(), HasSubstr("-create=never"));
  settings.create = VolumeSettings::Create::kOnly;
  EXPECT_EQ(opened(), 1U << 20);
}

TEST_F(Volume, OfAFileIsMadeThenKeepsItsSize) {
  settings.type = "file";
  EXPECT_EQ(opened(), 1U << 20);
  EXPECT_EQ(std::filesystem::file_size(settings.directory + "/vol.bin"), 1U << 20);
  settings.size = 2U << 20;
  EXPECT_EQ(opened(), 1U << 20);
  settings.size_given = true;
  const std::string message = refused();
  EXPECT_THAT(message, HasSubstr("1048576"));
  EXPECT_THAT(message, HasSubstr("2097152"));
}

TEST_F(Volume, IsMadeOnlyWhenThatIsAllowed) {
  settings.type = "file";
  settings.create = VolumeSettings::Create::kNever;
  EXPECT_THAT(refused(), HasSubstr("vol.bin"));
  settings.create = VolumeSettings::Create::kOnly;
  EXPECT_EQ(opened(), 1U << 20);
  EXPECT_THAT(refused(), HasSubstr("vol.bin"));
}

TEST_F(Volume, OfATypeThatIsNotBuiltIsRefusedClearly) {
  settings.type = "dedup";
  EXPECT_THAT(refused(), HasSubstr("-dev-type=dedup: this build has no dedup device yet"));
}

class ObjstoreVolume : public Volume {
 protected:
  ObjstoreVolume() {
    settings.type = "objstore";
    settings.objstore.kind = "local";
    settings.objstore.cfg = R"({"path":")" + settings.directory + R"("})";
    settings.objstore.container = "bucket";
  }
};

TEST_F(ObjstoreVolume, IsMadeThenKeepsItsSize) {
  settings.size = (1U << 20) + 1;
  EXPECT_EQ(opened(), (1U << 20) + 4096);
  EXPECT_EQ(opened(), (1U << 20) + 4096);
  settings.size_given = true;
  settings.size = 2U << 20;
  EXPECT_THAT(refused(), HasSubstr("2097152"));
  EXPECT_TRUE(std::filesystem::exists(settings.directory + "/bucket/vol/head,obj"));
}

TEST_F(ObjstoreVolume, OfAKindThatIsNotBuiltIsRefusedClearly) {
  settings.objstore.kind = "sftp";
  EXPECT_THAT(refused(), HasSubstr("-objstore-kind=sftp: this build has no store of that kind"));
}

TEST_F(ObjstoreVolume, NeedsTheKeyThatItWasMadeWith) {
  opened();
  std::filesystem::remove(settings.directory + "/key.aes");
  EXPECT_THAT(refused(), HasSubstr("there is no key"));
  EXPECT_FALSE(std::filesystem::exists(settings.directory + "/key.aes"));
  settings.objstore.key_source = "key:" + std::string(64, 'a');
  EXPECT_THAT(refused(), HasSubstr("not the key"));
}

TEST_F(ObjstoreVolume, RefusesWhatItWasNotMadeWith) {
  settings.objstore.cipher = "identity";
  settings.objstore.cipher_given = true;
  opened();
  settings.objstore.key_source = "key:" + std::string(64, 'a');
  EXPECT_THAT(refused(), HasSubstr("is not encrypted"));
  settings.objstore.cipher = "aes-gcm";
  EXPECT_THAT(refused(), HasSubstr("-objstore-aesmode=aes-gcm"));
}

TEST_F(ObjstoreVolume, ThatIsNotEncryptedIsOpenedOnlyWhenThatIsSaid) {
  settings.objstore.cipher = "identity";
  opened();
  EXPECT_THAT(refused(), HasSubstr("-objstore-aesmode=identity"));
  settings.objstore.cipher = "aes-gcm";
  EXPECT_THAT(refused(), HasSubstr("-objstore-aesmode=identity"));
  settings.objstore.cipher = "identity";
  settings.objstore.cipher_given = true;
  EXPECT_EQ(opened(), settings.size);
}

TEST_F(ObjstoreVolume, KeepsItsBlockSizeWhateverIsAskedFor) {
  settings.size = (1U << 20) + 512;
  settings.block_size = 512;
  EXPECT_EQ(opened(), (1U << 20) + 512);
  settings.block_size = 4096;
  settings.block_size_given = true;
  EXPECT_EQ(opened(), (1U << 20) + 512);
  settings.size_given = true;
  EXPECT_EQ(opened(), (1U << 20) + 512);
}

TEST_F(ObjstoreVolume, IsMadeOnlyWhenThatIsAllowed) {
  settings.create = VolumeSettings::Create::kNever;
  settings.objstore.container = "other";
  EXPECT_THAT(refused(), HasSubstr(settings.directory + "/other"));
  EXPECT_FALSE(std::filesystem::exists(settings.directory + "/other"));
  std::filesystem::create_directory(settings.directory + "/other");
  EXPECT_THAT(refused(), HasSubstr("-create=never"));
  settings.create = VolumeSettings::Create::kAuto;
  settings.read_only = true;
  EXPECT_THAT(refused(), HasSubstr("-read-only"));
  settings.read_only = false;
  settings.name = "no/name";
  EXPECT_THAT(refused(), HasSubstr("-store-name"));
}

TEST_F(ObjstoreVolume, ThatNobodyTouchesIsWhatEndedWell) {
  Result<OpenedVolume> volume = runtime->run(open_volume(settings, *runtime));
  ASSERT_TRUE(volume) << volume.error().message();
  EXPECT_THAT(volume->id, HasSubstr("objstore:"));
  EXPECT_THAT(volume->upkeep.waits_for(), HasSubstr("0 B"));
  EXPECT_TRUE(runtime->run(volume->device->close()));
  EXPECT_EQ(volume->upkeep.ending(), Ending::kComplete);
}

TEST(JournalBytes, AreAQuarterOfTheVolumeWithinBounds) {
  EXPECT_EQ(journal_bytes(0, 1U << 20), 64ULL << 20);
  EXPECT_EQ(journal_bytes(0, 1ULL << 30), 256ULL << 20);
  EXPECT_EQ(journal_bytes(0, 1ULL << 40), 1ULL << 30);
  EXPECT_EQ(journal_bytes(9U << 20, 1ULL << 40), 9ULL << 20);
}

TEST(RoundUp, GivesWholeBlocksAndRefusesOverflow) {
  EXPECT_EQ(*round_up(1, 512), 512U);
  EXPECT_EQ(*round_up(512, 512), 512U);
  EXPECT_FALSE(round_up(INT64_MAX, 4096));
}

}  // namespace
}  // namespace usbd::daemon
