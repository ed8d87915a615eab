// SPDX-License-Identifier: Apache-2.0
//
// The daemon's own table: every flag of its interface is there, with the default that users of
// the original know, and takes and refuses the right values.

#include "daemon/flag_table.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

using std::chrono::microseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

class FlagTable : public testing::Test {
 protected:
  bool takes(const std::string& word) {
    FlagValues values(specs);
    const std::vector<std::string> words = {word};
    return parse_arguments(words, values).has_value();
  }
  std::string canonical(const std::string& name, const std::string& value) {
    FlagValues values(specs);
    const std::vector<std::string> words = {"-" + name, value};
    EXPECT_TRUE(parse_arguments(words, values));
    return values.text(name);
  }

  const std::vector<FlagSpec> specs = daemon_flags();
  const FlagValues defaults{specs};
};

TEST_F(FlagTable, HasEveryFlagOfTheInterfaceOnce) {
  const std::set<std::string> expected = {"help",
                                          "version",
                                          "config",
                                          "log-format",
                                          "pidfile",
                                          "state-dir",
                                          "lock-memory",
                                          "stop-timeout",
                                          "close-timeout",
                                          "threads",
                                          "busy-poll",
                                          "dev-type",
                                          "create",
                                          "store-size",
                                          "store-dir",
                                          "store-name",
                                          "read-only",
                                          "block-size",
                                          "layer",
                                          "export",
                                          "insecure-tcp",
                                          "max-connections",
                                          "device",
                                          "nbd-driver",
                                          "nbd-max-devs",
                                          "connections",
                                          "nbd-timeout",
                                          "nbd-dead-timeout",
                                          "recover",
                                          "file-direct",
                                          "dedup-memcache",
                                          "dedup-compress",
                                          "objstore-kind",
                                          "objstore-cfg",
                                          "objstore-container",
                                          "objstore-objsize",
                                          "objstore-diskcache",
                                          "objstore-persistcache",
                                          "objstore-flushevery",
                                          "objstore-concurflush",
                                          "objstore-aesmode",
                                          "objstore-aeskey",
                                          "objstore-compress",
                                          "objstore-flushmode",
                                          "objstore-maxdirtyage",
                                          "objstore-journalsize",
                                          "objstore-gctarget",
                                          "objstore-mapmem",
                                          "objstore-timeout",
                                          "objstore-takeover",
                                          "objstore-fencing"};
  std::set<std::string> names;
  for (const FlagSpec& spec : specs) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name << " is there twice";
    EXPECT_FALSE(spec.help.empty()) << spec.name;
  }
  EXPECT_EQ(names, expected);
}

TEST_F(FlagTable, HasTheDefaultsOfTheInterface) {
  EXPECT_EQ(defaults.text("dev-type"), "mem");
  EXPECT_EQ(defaults.text("store-dir"), "./");
  EXPECT_EQ(defaults.text("store-name"), "test-lun");
  EXPECT_EQ(defaults.size("store-size"), 1ULL << 30);
  EXPECT_EQ(defaults.count("nbd-max-devs"), 32U);
  EXPECT_EQ(defaults.text("create"), "auto");
  EXPECT_EQ(defaults.duration("stop-timeout"), seconds(30));
  EXPECT_EQ(defaults.duration("close-timeout"), seconds(60));
  EXPECT_EQ(defaults.duration("busy-poll"), microseconds(50));
  EXPECT_EQ(defaults.duration("nbd-timeout"), seconds(60));
  EXPECT_EQ(defaults.duration("nbd-dead-timeout"), minutes(10));
  EXPECT_EQ(defaults.count("block-size"), 4096U);
  EXPECT_TRUE(defaults.on("recover"));
  EXPECT_FALSE(defaults.on("lock-memory"));
  EXPECT_EQ(defaults.size("dedup-memcache"), 512ULL << 20);
  EXPECT_EQ(defaults.text("dedup-compress"), "lz4");
  EXPECT_EQ(defaults.text("objstore-kind"), "s3");
  EXPECT_EQ(defaults.size("objstore-objsize"), 64ULL << 20);
  EXPECT_EQ(defaults.duration("objstore-flushevery"), seconds(10));
  EXPECT_EQ(defaults.duration("objstore-maxdirtyage"), minutes(5));
  EXPECT_EQ(defaults.text("objstore-gctarget"), "1.40");
  EXPECT_EQ(defaults.text("objstore-aesmode"), "aes-gcm");
  EXPECT_EQ(defaults.text("objstore-flushmode"), "local");
  EXPECT_EQ(defaults.text("objstore-fencing"), "on");
}

TEST_F(FlagTable, KnowsTheOriginalsWordsForDeviceTypes) {
  EXPECT_EQ(canonical("dev-type", "memory"), "mem");
  EXPECT_EQ(canonical("dev-type", "disk"), "file");
  EXPECT_EQ(canonical("dev-type", "dedup-file"), "dedup");
  EXPECT_EQ(canonical("dev-type", "dedup-disk"), "dedup");
  EXPECT_EQ(canonical("dev-type", "osbd"), "objstore");
  EXPECT_EQ(canonical("objstore-aesmode", "aes-rec"), "aes-gcm");
}

TEST_F(FlagTable, TakesGoodValues) {
  for (const char* word : {"-store-name=tutorial-vol",
                           "-store-size=100 MiB",
                           "-nbd-max-devs=1",
                           "/dev/nbd5",
                           "/dev/ublkb0",
                           "-export=tcp:127.0.0.1:0",
                           "-block-size=512",
                           "-log-format=journald",
                           "-create=only",
                           "-dedup-compress=zstd:7",
                           "-objstore-compress=s2",
                           "-objstore-kind=sftp",
                           "-objstore-aeskey=env:KEY",
                           "-objstore-cfg={\"path\":\"/x\"}",
                           "-objstore-cfg=@/x",
                           "-objstore-diskcache=0",
                           "-objstore-flushevery=0",
                           "-objstore-gctarget=1.2",
                           "-objstore-persistcache",
                           "-objstore-takeover=false",
                           "-objstore-fencing=none",
                           "-layer=delay:read=1ms",
                           "-nbd-driver=ioctl",
                           "-threads=0",
                           "-busy-poll=0",
                           "-busy-poll=10ms"}) {
    EXPECT_TRUE(takes(word)) << word;
  }
}

TEST_F(FlagTable, RefusesBadValues) {
  for (const char* word : {"-store-name=a/b",
                           "-store-name=",
                           "-store-name=..",
                           "-store-size=0",
                           "-store-size=-1",
                           "-nbd-max-devs=0",
                           "-nbd-max-devs=x",
                           "/dev/sda",
                           "-export=usb",
                           "-block-size=1024",
                           "-log-format=xml",
                           "-create=yes",
                           "-dedup-compress=s2",
                           "-dedup-memcache=1KiB",
                           "-objstore-kind=ftp",
                           "-objstore-aesmode=des",
                           "-objstore-aeskey=plain",
                           "-objstore-cfg={",
                           "-objstore-cfg={\"a\":1}",
                           "-objstore-objsize=5",
                           "-objstore-flushevery=10",
                           "-objstore-gctarget=0.9",
                           "-objstore-concurflush=-1",
                           "-objstore-flushmode=never",
                           "-objstore-fencing=maybe",
                           "-stop-timeout=soon",
                           "-close-timeout=0",
                           "-nbd-timeout=0",
                           "-max-connections=0",
                           "-threads=257",
                           "-busy-poll=50",
                           "-busy-poll=11ms",
                           "-layer="}) {
    EXPECT_FALSE(takes(word)) << word;
  }
}

TEST_F(FlagTable, OfAnAuthorHasNoDeviceTypes) {
  const std::vector<FlagSpec> author = author_flags("my/device");
  const FlagValues values(author);
  EXPECT_EQ(values.find("dev-type"), nullptr);
  EXPECT_EQ(values.find("store-size"), nullptr);
  EXPECT_EQ(values.find("objstore-kind"), nullptr);
  EXPECT_NE(values.find("export"), nullptr);
  EXPECT_NE(values.find("device"), nullptr);
  EXPECT_EQ(values.text("store-name"), "my_device");
}

}  // namespace
}  // namespace usbd::daemon
