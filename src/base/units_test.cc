// SPDX-License-Identifier: Apache-2.0
//
// What people may write for sizes and durations, what is refused, and that what we print can be
// read back.

#include "base/units.h"

#include <random>

#include <gtest/gtest.h>

namespace usbd {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

uint64_t size_of(std::string_view text) {
  const Result<uint64_t> size = parse_size(text);
  EXPECT_TRUE(size.has_value()) << text << ": " << (size ? "" : size.error().message());
  return size ? *size : 0;
}

nanoseconds duration_of(std::string_view text) {
  const Result<nanoseconds> duration = parse_duration(text);
  EXPECT_TRUE(duration.has_value()) << text << ": " << (duration ? "" : duration.error().message());
  return duration ? *duration : nanoseconds(-1);
}

TEST(ParseSize, TakesBytesAndEveryUnit) {
  EXPECT_EQ(size_of("0"), 0U);
  EXPECT_EQ(size_of("513"), 513U);
  EXPECT_EQ(size_of("7B"), 7U);
  EXPECT_EQ(size_of("1K"), 1'000U);
  EXPECT_EQ(size_of("1KiB"), 1'024U);
  EXPECT_EQ(size_of("100 MiB"), 100U << 20);
  EXPECT_EQ(size_of("20GiB"), 20ULL << 30);
  EXPECT_EQ(size_of("1GB"), 1'000'000'000U);
  EXPECT_EQ(size_of("1G"), 1'000'000'000U);
  EXPECT_EQ(size_of("1Gi"), 1ULL << 30);
  EXPECT_EQ(size_of("3TiB"), 3ULL << 40);
  EXPECT_EQ(size_of("2PB"), 2'000'000'000'000'000U);
  EXPECT_EQ(size_of("7EiB"), 7ULL << 60);
}

TEST(ParseSize, IgnoresCaseSpacesAndCommas) {
  EXPECT_EQ(size_of(" 1,048,576 "), 1U << 20);
  EXPECT_EQ(size_of("1 gib"), 1ULL << 30);
  EXPECT_EQ(size_of("1GIB"), 1ULL << 30);
}

TEST(ParseSize, ComputesFractionsExactlyAndRoundsDown) {
  EXPECT_EQ(size_of("1.5GiB"), (1ULL << 30) + (1ULL << 29));
  EXPECT_EQ(size_of("0.3 KiB"), 307U);
  EXPECT_EQ(size_of(".5MiB"), 1U << 19);
  EXPECT_EQ(size_of("1.GB"), 1'000'000'000U);
  EXPECT_EQ(size_of("0.123456789GB"), 123'456'789U);
}

TEST(ParseSize, RefusesWhatIsNotASize) {
  for (const char* text : {"", " ", "GiB", "-1", "-1GiB", "1XB", "1 GiBs", "1..5G", ".", "0x10",
                           "1e9", "one", "1GiB2", "+1"}) {
    const Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.has_value()) << text;
    EXPECT_TRUE(size.error().is(Errc::kInvalid)) << text;
  }
}

TEST(ParseSize, RefusesOverflow) {
  for (const char* text :
       {"8EiB", "9223372036854775808", "99999999999999999999999", "17EB", "8.0000000001EiB"}) {
    const Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.has_value()) << text;
    EXPECT_TRUE(size.error().is(Errc::kOverflow)) << text;
  }
  EXPECT_EQ(size_of("9223372036854775807"), static_cast<uint64_t>(INT64_MAX));
}

TEST(FormatSize, IsShortAndExact) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(513), "513 B");
  EXPECT_EQ(format_size(1ULL << 30), "1 GiB");
  EXPECT_EQ(format_size(3ULL << 29), "1.5 GiB");
  EXPECT_EQ(format_size(1'000'000'000), "976562.5 KiB");
  EXPECT_EQ(format_size((1ULL << 40) + 1), "1099511627777 B");
}

TEST(FormatSize, CanBeReadBack) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t bytes = random() >> (1 + random() % 63);
    ASSERT_EQ(size_of(format_size(bytes)), bytes);
  }
}

TEST(ParseDuration, ReadsGoDurations) {
  EXPECT_EQ(duration_of("0"), nanoseconds(0));
  EXPECT_EQ(duration_of("0s"), nanoseconds(0));
  EXPECT_EQ(duration_of("10s"), seconds(10));
  EXPECT_EQ(duration_of("+10s"), seconds(10));
  EXPECT_EQ(duration_of("1m30s"), seconds(90));
  EXPECT_EQ(duration_of("500ms"), milliseconds(500));
  EXPECT_EQ(duration_of("1.5h"), minutes(90));
  EXPECT_EQ(duration_of("2h45m10.5s"), hours(2) + minutes(45) + milliseconds(10'500));
  EXPECT_EQ(duration_of("3us"), nanoseconds(3'000));
  EXPECT_EQ(duration_of("3µs"), nanoseconds(3'000));
  EXPECT_EQ(duration_of("7ns"), nanoseconds(7));
}

TEST(ParseDuration, RefusesWhatIsNotADuration) {
  for (const char* text :
       {"", "10", "s", "-1s", "1 s", "1d", "10sec", "1m30", "1s,", ".", "1..2s"}) {
    const Result<nanoseconds> duration = parse_duration(text);
    ASSERT_FALSE(duration.has_value()) << text;
    EXPECT_TRUE(duration.error().is(Errc::kInvalid)) << text;
  }
}

TEST(ParseDuration, RefusesOverflow) {
  for (const char* text : {"2562048h", "99999999999999999999s", "9223372036s9223372036s"}) {
    const Result<nanoseconds> duration = parse_duration(text);
    ASSERT_FALSE(duration.has_value()) << text;
    EXPECT_TRUE(duration.error().is(Errc::kOverflow)) << text;
  }
}

TEST(FormatDuration, PrintsAsGoDoesWithoutZeroParts) {
  EXPECT_EQ(format_duration(nanoseconds(0)), "0s");
  EXPECT_EQ(format_duration(milliseconds(500)), "500ms");
  EXPECT_EQ(format_duration(milliseconds(1'500)), "1.5s");
  EXPECT_EQ(format_duration(seconds(90)), "1m30s");
  EXPECT_EQ(format_duration(minutes(10)), "10m");
  EXPECT_EQ(format_duration(hours(26)), "26h");
  EXPECT_EQ(format_duration(nanoseconds(1'001)), "1.001us");
}

TEST(FormatDuration, CanBeReadBack) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 10'000; ++i) {
    const nanoseconds value(static_cast<int64_t>(random() >> (1 + random() % 63)));
    ASSERT_EQ(duration_of(format_duration(value)), value);
  }
}

}  // namespace
}  // namespace usbd
