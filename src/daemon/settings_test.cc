// SPDX-License-Identifier: Apache-2.0
//
// How the sources are joined, and what is checked over several flags.

#include "daemon/settings.h"

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/flag_table.h"

namespace usbd::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class SettingsTest : public testing::Test {
 protected:
  Settings settings(const std::vector<std::string>& words) {
    FlagValues values(specs);
    EXPECT_TRUE(parse_arguments(words, values));
    Result<Settings> result = to_settings(values);
    EXPECT_TRUE(result) << result.error().message();
    return result ? *result : Settings();
  }
  std::string refused(const std::vector<std::string>& words) {
    FlagValues values(specs);
    EXPECT_TRUE(parse_arguments(words, values));
    const Result<Settings> result = to_settings(values);
    EXPECT_FALSE(result);
    return result ? "" : result.error().message();
  }

  const std::vector<FlagSpec> specs = daemon_flags();
};

TEST_F(SettingsTest, HaveTheDefaultsOfTheServer) {
  const Settings made = settings({});
  const ServeOptions defaults;
  EXPECT_EQ(made.serve.devices_max, defaults.devices_max);
  EXPECT_EQ(made.serve.nbd_timeout, defaults.nbd_timeout);
  EXPECT_EQ(made.serve.nbd_dead_timeout, defaults.nbd_dead_timeout);
  EXPECT_EQ(made.serve.stop_timeout, defaults.stop_timeout);
  EXPECT_EQ(made.serve.connections_max, defaults.connections_max);
  EXPECT_EQ(made.serve.busy_poll, defaults.busy_poll);
  EXPECT_THAT(made.serve.exports, IsEmpty());
  EXPECT_EQ(made.serve.name, "test-lun");
  EXPECT_FALSE(made.volume.size_given);
}

TEST_F(SettingsTest, CarryTheFlags) {
  const Settings made = settings(
      {"-dev-type=disk", "-create=only", "-store-size=2GiB", "-read-only", "-export=unix:/x",
       "-layer=stats", "-layer=readonly", "-file-direct", "-block-size=512", "-log-format=json",
       "-pidfile=/p", "-nbd-driver=ioctl", "-threads=3", "-busy-poll=7us"});
  EXPECT_EQ(made.volume.type, "file");
  EXPECT_EQ(made.volume.create, VolumeSettings::Create::kOnly);
  EXPECT_TRUE(made.volume.size_given);
  EXPECT_TRUE(made.volume.read_only);
  EXPECT_TRUE(made.serve.read_only);
  EXPECT_TRUE(made.volume.direct);
  EXPECT_EQ(made.volume.block_size, 512U);
  EXPECT_THAT(made.serve.exports, ElementsAre("unix:/x"));
  EXPECT_THAT(made.serve.layers, ElementsAre("stats", "readonly"));
  EXPECT_EQ(made.serve.nbd_driver, ServeOptions::NbdDriver::kIoctl);
  EXPECT_EQ(made.serve.threads, 3U);
  EXPECT_EQ(made.serve.busy_poll, std::chrono::microseconds(7));
  EXPECT_EQ(made.process.log_format, LogFormat::kJson);
  EXPECT_EQ(made.process.pidfile, "/p");
}

TEST_F(SettingsTest, FlagsWinOverEnvironmentWinsOverFile) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("settings_test." + std::to_string(::getpid()) + ".toml");
  std::ofstream(path) << "store-name = \"file\"\nblock-size = 512\nconnections = 1\n";
  FlagValues values(specs);
  const std::vector<std::string> words = {"-store-name=flag"};
  const std::vector<std::string> environment = {"USBD_STORE_NAME=env", "USBD_BLOCK_SIZE=4096",
                                                "USBD_CONFIG=" + path, "USBD_EXPROT=1"};
  ASSERT_TRUE(parse_arguments(words, values));
  const Result<std::vector<std::string>> warnings = read_sources(environment, values);
  std::filesystem::remove(path);
  ASSERT_TRUE(warnings);
  EXPECT_THAT(*warnings, ElementsAre(HasSubstr("USBD_EXPROT")));
  EXPECT_EQ(values.text("store-name"), "flag");
  EXPECT_EQ(values.count("block-size"), 4096U);
  EXPECT_EQ(values.count("connections"), 1U);
}

TEST_F(SettingsTest, RefuseADirectoryThatIsNone) {
  EXPECT_THAT(refused({"-store-dir=/nonexistent"}),
              HasSubstr("-store-dir: \"/nonexistent\" does not exist"));
  EXPECT_THAT(refused({"-store-dir=/dev/null"}), HasSubstr("is not a directory"));
}

TEST_F(SettingsTest, RefuseADeviceThatTheExportsDoNotUse) {
  EXPECT_THAT(refused({"-export=unix:/x", "/dev/nbd0"}), HasSubstr("add -export=nbd"));
}

TEST_F(SettingsTest, CheckTheStoreOnlyWhereItIsUsed) {
  settings({"-objstore-cfg=@/nonexistent"});
  EXPECT_THAT(refused({"-dev-type=objstore", "-objstore-cfg=@/nonexistent"}),
              HasSubstr("-objstore-cfg: cannot open"));
  EXPECT_THAT(refused({"-dev-type=objstore", "-objstore-kind=local"}),
              HasSubstr("requires the key path"));
  settings({"-dev-type=objstore"});
}

TEST_F(SettingsTest, WarnOfFlagsOfOtherDeviceTypes) {
  FlagValues values(specs);
  const std::vector<std::string> words = {"-dedup-memcache=1GiB", "-objstore-kind=s3",
                                          "-file-direct"};
  ASSERT_TRUE(parse_arguments(words, values));
  EXPECT_THAT(ignored_flags(values, "file"),
              ElementsAre(HasSubstr("-dedup-memcache is not for -dev-type=file"),
                          HasSubstr("-objstore-kind")));
  EXPECT_EQ(ignored_flags(values, "mem").size(), 3U);
}

TEST_F(SettingsTest, CarryTheFlagsOfAnObjectStore) {
  const ObjstoreSettings made =
      settings({"-objstore-kind=local", "-objstore-container=c", "-objstore-aeskey=env:K",
                "-objstore-aesmode=aes-ctr", "-objstore-compress=zstd:5", "-objstore-objsize=8MiB",
                "-objstore-gctarget=1.25", "-objstore-journalsize=9MiB", "-objstore-flushevery=2s",
                "-objstore-maxdirtyage=7s", "-objstore-timeout=3s", "-objstore-concurflush=6",
                "-objstore-flushmode=remote", "-objstore-takeover", "-objstore-fencing=none"})
          .volume.objstore;
  EXPECT_EQ(made.kind, "local");
  EXPECT_EQ(made.container, "c");
  EXPECT_EQ(made.key_source, "env:K");
  EXPECT_EQ(made.cipher, "aes-ctr");
  EXPECT_TRUE(made.cipher_given);
  EXPECT_EQ(made.codec, "zstd:5");
  EXPECT_EQ(made.object_bytes, 8U << 20);
  EXPECT_EQ(made.gc_target, 1.25);
  EXPECT_EQ(made.journal_bytes, 9U << 20);
  EXPECT_EQ(made.flush_every, std::chrono::seconds(2));
  EXPECT_EQ(made.dirty_age_max, std::chrono::seconds(7));
  EXPECT_EQ(made.timeout, std::chrono::seconds(3));
  EXPECT_EQ(made.uploads_max, 6U);
  EXPECT_TRUE(made.flushes_remotely);
  EXPECT_TRUE(made.takeover);
  EXPECT_FALSE(made.fencing);
}

TEST_F(SettingsTest, RefuseAJournalThatIsTooSmall) {
  EXPECT_THAT(refused({"-dev-type=objstore", "-objstore-journalsize=1MiB"}), HasSubstr("8 MiB"));
}

TEST_F(SettingsTest, WarnOfNoFlagOfAnObjectStore) {
  FlagValues values(specs);
  const std::vector<std::string> words = {"-objstore-diskcache=1GiB", "-objstore-gctarget=1.3",
                                          "-objstore-mapmem=1GiB"};
  ASSERT_TRUE(parse_arguments(words, values));
  EXPECT_THAT(ignored_flags(values, "objstore"), IsEmpty());
}

TEST_F(SettingsTest, WarnOfFlagsThatHaveNoEffectYet) {
  FlagValues values(specs);
  EXPECT_THAT(ignored_flags(values, "mem"), IsEmpty());
  const std::vector<std::string> words = {"-recover=false", "-state-dir=/run/x"};
  ASSERT_TRUE(parse_arguments(words, values));
  EXPECT_THAT(ignored_flags(values, "mem"),
              ElementsAre(HasSubstr("-recover has no effect"), HasSubstr("-state-dir")));
}

TEST_F(SettingsTest, OfAnAuthorNeedNoVolumeFlags) {
  const std::vector<FlagSpec> author = author_flags("my/device");
  FlagValues values(author);
  const std::vector<std::string> words = {"-export=unix:/x", "-store-name=mine"};
  ASSERT_TRUE(parse_arguments(words, values));
  const Result<Settings> made = to_settings(values);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->serve.name, "mine");
}

}  // namespace
}  // namespace usbd::daemon
