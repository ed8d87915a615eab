// SPDX-License-Identifier: Apache-2.0
//
// When reads are read ahead of, and how far.

#include "devices/objstore/read_streams.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd::objstore {
namespace {

class ReadStreamsTest : public ::testing::Test {
 protected:
  /// Reads `count` blocks `times` times from `first` on; returns where what is fetched ahead ends.
  uint64_t read_on(uint64_t first, uint64_t count, unsigned times) {
    uint64_t ahead = first;
    for (unsigned i = 0; i < times; ++i) {
      const BlockRange window = streams.note({first + i * count, count});
      if (window.count == 0) continue;
      EXPECT_GE(window.first, ahead) << "nothing is fetched twice";
      ahead = window.end();
    }
    return ahead;
  }

  ReadStreams streams;
};

TEST_F(ReadStreamsTest, AFewReadsInARowMakeAStream) {
  for (uint64_t i = 0; i < limits::kReadAheadAfter; ++i) {
    EXPECT_EQ(streams.note({i * 8, 8}), BlockRange());
  }
  const uint64_t next = (limits::kReadAheadAfter + 1) * 8;
  EXPECT_EQ(streams.note({next - 8, 8}), BlockRange(next, limits::kReadAheadBlocksMin));
  EXPECT_EQ(streams.note({next, 8}), BlockRange()) << "there is enough on its way";
}

TEST_F(ReadStreamsTest, TheWindowGrowsWithWhatWasRead) {
  const uint64_t short_one = read_on(0, 8, 128) - 1024;
  EXPECT_GE(short_one, 1024U / 4);
  EXPECT_LE(short_one, 1024U / 2);
  constexpr uint64_t kFar = uint64_t{1} << 30U;
  const uint64_t read = 256 * uint64_t{256};
  const uint64_t long_one = read_on(kFar, 256, 256) - kFar - read;
  EXPECT_GE(long_one, limits::kReadAheadBlocksMax / 2);
  EXPECT_LE(long_one, limits::kReadAheadBlocksMax);
}

TEST_F(ReadStreamsTest, ReadsAtRandomCauseNothing) {
  SeededRng rng(5);
  for (unsigned i = 0; i < 1000; ++i) {
    EXPECT_EQ(streams.note({rng.below(1U << 30) * 16, 1}).count, 0U);
  }
}

TEST_F(ReadStreamsTest, ALateReadChangesNothing) {
  EXPECT_EQ(streams.note({0, 8}), BlockRange());
  EXPECT_EQ(streams.note({16, 8}), BlockRange());
  EXPECT_EQ(streams.note({8, 8}), BlockRange());
  EXPECT_EQ(streams.note({24, 8}), BlockRange());
  EXPECT_GT(streams.note({32, 8}).count, 0U);
}

TEST_F(ReadStreamsTest, NotesQuietlyUntilThereIsSomethingToFetch) {
  for (uint64_t i = 0; i < limits::kReadAheadAfter; ++i) {
    EXPECT_TRUE(streams.note_if_quiet({i * 8, 8}));
    EXPECT_EQ(streams.note({i * 8, 8}), BlockRange()) << "it has been noted";
  }
  const uint64_t at = limits::kReadAheadAfter * 8;
  EXPECT_FALSE(streams.note_if_quiet({at, 8}));
  EXPECT_FALSE(streams.note_if_quiet({at, 8})) << "nothing was noted";
  EXPECT_EQ(streams.note({at, 8}), BlockRange(at + 8, limits::kReadAheadBlocksMin));
  EXPECT_TRUE(streams.note_if_quiet({at + 8, 8}));
  EXPECT_TRUE(streams.note_if_quiet({0, 0}));
}

}  // namespace
}  // namespace usbd::objstore
