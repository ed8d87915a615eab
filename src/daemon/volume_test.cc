// SPDX-License-Identifier: Apache-2.0
//
// Which volumes are opened, made or refused. Reading and writing them is the devices' own tests'.

#include "daemon/volume.h"

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  settings.type = "objstore";
  EXPECT_THAT(refused(), HasSubstr("this build has no objstore device yet"));
}

TEST(RoundUp, GivesWholeBlocksAndRefusesOverflow) {
  EXPECT_EQ(*round_up(1, 512), 512U);
  EXPECT_EQ(*round_up(512, 512), 512U);
  EXPECT_FALSE(round_up(INT64_MAX, 4096));
}

}  // namespace
}  // namespace usbd::daemon
