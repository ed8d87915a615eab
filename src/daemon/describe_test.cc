// SPDX-License-Identifier: Apache-2.0
//
// The sentences that the daemon says about itself.

#include "daemon/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ExportInfo info_of(uint64_t size) {
  ExportInfo info;
  info.name = "vol";
  info.size = size;
  return info;
}

TEST(Describe, SaysWhatIsServedAndHow) {
  ServeOptions options;
  EXPECT_EQ(
      describe(info_of(1U << 30), "memory", options),
      "Exporting 1 GiB volume \"vol\" as the first free kernel device (auto), kept in memory, "
      "in blocks of 4096 bytes");
  options.devices = {"/dev/nbd5"};
  options.exports = {"nbd", "unix:/x"};
  options.layers = {"stats", "readonly"};
  ExportInfo info = info_of(512);
  info.read_only = true;
  info.block_size_logical = 512;
  EXPECT_EQ(describe(info, "", options),
            "Exporting 512 B volume \"vol\" as /dev/nbd5, unix:/x, with layers stats, readonly, in "
            "blocks of 512 bytes, read-only");
}

TEST(Describe, NamesPlacesByDeviceOrUri) {
  const std::vector<ServedAt> places = {
      {.kind = ServedAt::Kind::kKernelDevice, .name = "/dev/nbd0"},
      {.kind = ServedAt::Kind::kTcpSocket, .name = "h:1", .uri = "nbd://h:1/vol"}};
  EXPECT_THAT(place_names(places), ElementsAre("/dev/nbd0", "nbd://h:1/vol"));
}

TEST(Describe, ConnectionsCanBePastedIntoAShell) {
  const ServedAt place{.kind = ServedAt::Kind::kUnixSocket,
                       .name = "/tmp/it's.sock",
                       .uri = "nbd+unix:///vol?socket=/tmp/it%27s.sock"};
  const std::string text = how_to_connect(place, "a b");
  EXPECT_THAT(text, HasSubstr("nbdinfo 'nbd+unix:///vol?socket=/tmp/it%27s.sock'"));
  EXPECT_THAT(text, HasSubstr("-unix '/tmp/it'\\''s.sock' -N 'a b'"));
}

TEST(Explain, LeavesOutTheCodeWhereOurWordsAreTheReason) {
  EXPECT_EQ(explain(Error(Errc::kBusy, "it is in use")), "it is in use");
  EXPECT_EQ(explain(Error(Errc::kNotFound, "cannot open x")),
            "cannot open x: No such file or directory");
  EXPECT_EQ(explain(Error(Errc::kBusy)), "Device or resource busy");
}

}  // namespace
}  // namespace usbd::daemon
