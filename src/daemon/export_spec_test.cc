// SPDX-License-Identifier: Apache-2.0
//
// Which exports and devices may be named, and which combinations make sense.

#include "daemon/export_spec.h"

#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

using Kind = ExportSpec::Kind;

TEST(ExportSpec, ReadsEveryForm) {
  EXPECT_EQ(parse_export("auto")->kind, Kind::kAuto);
  EXPECT_EQ(parse_export("nbd")->kind, Kind::kNbd);
  EXPECT_EQ(parse_export("ublk")->kind, Kind::kUblk);
  EXPECT_EQ(parse_export("none")->kind, Kind::kNone);
  EXPECT_EQ(parse_export("unix:/run/a:b.sock")->kind, Kind::kUnix);
  EXPECT_EQ(parse_export("unix:/run/a:b.sock")->endpoint.path, "/run/a:b.sock");
  EXPECT_EQ(parse_export("tcp:localhost:10809")->kind, Kind::kTcp);
  EXPECT_EQ(parse_export("tcp:localhost:10809")->endpoint.port, 10809);
  EXPECT_EQ(parse_export("tcp:[::1]:0")->endpoint.host, "::1");
}

TEST(ExportSpec, PrintsWhatItReads) {
  for (const char* text :
       {"auto", "nbd", "ublk", "none", "unix:x.sock", "tcp:127.0.0.1:7", "tcp:[::1]:10809"}) {
    EXPECT_EQ(to_text(*parse_export(text)), text);
  }
}

TEST(ExportSpec, RefusesOtherForms) {
  for (const char* text : {"", "nbd0", "unix", "unix:", "tcp:", "tcp:10809", "tcp:h:", "tcp::1",
                           "tcp:h:65536", "tcp:h:-1", "tcp:::1:80", "tcp:h:1x", "AUTO"}) {
    EXPECT_FALSE(parse_export(text).has_value()) << text;
  }
}

TEST(ExportSpec, RefusesAPathTooLongForASocket) {
  EXPECT_TRUE(parse_export("unix:" + std::string(107, 'a')).has_value());
  EXPECT_FALSE(parse_export("unix:" + std::string(108, 'a')).has_value());
}

TEST(DeviceName, ReadsBothDrivers) {
  EXPECT_EQ(parse_device_name("/dev/nbd15")->index, 15U);
  EXPECT_EQ(parse_device_name("/dev/nbd15")->driver, Kind::kNbd);
  EXPECT_EQ(parse_device_name("nbd3")->path, "/dev/nbd3");
  EXPECT_EQ(parse_device_name("/dev/ublkb2")->driver, Kind::kUblk);
}

TEST(DeviceName, RefusesWhatIsNoSuchDevice) {
  for (const char* text : {"", "/dev/sda", "/dev/nbd", "/dev/nbd0p1", "/dev/nbd-1", "/dev/nbd01",
                           "/dev/nbd1048576", "/dev/ublkc0", "./nbd0", "/tmp/nbd0"}) {
    EXPECT_FALSE(parse_device_name(text).has_value()) << text;
  }
}

TEST(ExportPlan, IsAutoWhenNothingIsNamed) {
  EXPECT_EQ(plan_exports({}, "")->at(0).kind, Kind::kAuto);
}

TEST(ExportPlan, TakesTheDriverOfTheNamedDevice) {
  EXPECT_EQ(plan_exports({"auto"}, "/dev/nbd5")->at(0).kind, Kind::kNbd);
  EXPECT_EQ(plan_exports({}, "/dev/ublkb0")->at(0).kind, Kind::kUblk);
  EXPECT_EQ(plan_exports({"unix:a", "nbd"}, "/dev/nbd5")->size(), 2U);
}

TEST(ExportPlan, RefusesContradictions) {
  EXPECT_FALSE(plan_exports({"unix:a"}, "/dev/nbd5").has_value());
  EXPECT_FALSE(plan_exports({"none"}, "/dev/nbd5").has_value());
  EXPECT_FALSE(plan_exports({"none", "nbd"}, "").has_value());
  EXPECT_FALSE(plan_exports({"nbd", "auto"}, "").has_value());
  EXPECT_FALSE(plan_exports({"unix:a", "unix:a"}, "").has_value());
  EXPECT_FALSE(plan_exports({}, "/dev/sda").has_value());
}

}  // namespace
}  // namespace usbd::daemon
