// SPDX-License-Identifier: Apache-2.0
//
// What the model accepts and what it does not, case by case.

#include "conformance/model.h"

#include <cerrno>
#include <cstring>

#include <gtest/gtest.h>

namespace usbd::testing {
namespace {

constexpr uint64_t kSize = 1U << 20;

class ModelTest : public ::testing::Test {
 protected:
  static Model::Options options() {
    return {.size = kSize,
            .block_size = 512,
            .payload_max = 64U << 10,
            .keeps_log = true,
            .windows = {ByteRange(0, kSize)}};
  }

  static Operation write(uint64_t offset, uint64_t length, char fill, bool fua = false) {
    Operation op;
    op.kind = OpKind::kWrite;
    op.offset = offset;
    op.length = length;
    op.fua = fua;
    op.data.assign(length, static_cast<std::byte>(fill));
    return op;
  }
  static Operation read(uint64_t offset, uint64_t length, char fill) {
    Operation op = write(offset, length, fill);
    op.kind = OpKind::kRead;
    return op;
  }
  static Operation plain(OpKind kind, uint64_t offset = 0, uint64_t length = 0) {
    Operation op;
    op.kind = kind;
    op.offset = offset;
    op.length = length;
    return op;
  }

  std::optional<Finding> apply(std::vector<Operation> batch) { return model_.apply(batch); }
  /// Settles with every byte of every read set to `fill`.
  std::optional<Finding> settle(char fill) {
    std::vector<Operation> reads = model_.settling_reads();
    EXPECT_FALSE(reads.empty());
    for (Operation& op : reads) op.data.assign(op.length, static_cast<std::byte>(fill));
    return model_.settle(reads);
  }
  /// What the model holds there now.
  bool holds(uint64_t offset, uint64_t length, char fill) {
    return !apply({read(offset, length, fill)}).has_value();
  }

  Model model_{options()};
};

TEST_F(ModelTest, HoldsZerosAtFirstAndThenWhatWasWritten) {
  EXPECT_TRUE(holds(0, 4096, 0));
  EXPECT_FALSE(apply({write(512, 1024, 'a')}));
  EXPECT_TRUE(holds(512, 1024, 'a'));
  EXPECT_FALSE(holds(0, 1024, 'a'));
  EXPECT_FALSE(holds(512, 1536, 'a'));
}

TEST_F(ModelTest, SaysWhichByteOfARead) {
  EXPECT_FALSE(apply({write(4096, 512, 'a')}));
  Operation op = read(4096, 512, 'a');
  op.data[17] = std::byte{'b'};
  const auto finding = apply({op});
  ASSERT_TRUE(finding);
  EXPECT_EQ(finding->offset, 4096U + 17);
}

TEST_F(ModelTest, LetsAReadSeeOldOrNewBytesOfAWriteInFlight) {
  EXPECT_FALSE(apply({write(0, 512, 'a')}));
  Operation mixed = read(0, 512, 'a');
  std::memset(mixed.data.data() + 100, 'b', 200);
  EXPECT_FALSE(apply({write(0, 512, 'b'), mixed}));
  EXPECT_TRUE(apply({write(0, 512, 'c'), read(0, 512, 'a')}));
}

TEST_F(ModelTest, TakesEitherOfTwoWritesInFlightButNoThird) {
  EXPECT_FALSE(apply({write(0, 1024, 'a'), write(512, 1024, 'b')}));
  EXPECT_FALSE(settle('b'));
  EXPECT_TRUE(holds(512, 512, 'b'));
  EXPECT_FALSE(apply({write(0, 512, 'a'), write(0, 512, 'b')}));
  EXPECT_TRUE(settle('c'));
}

TEST_F(ModelTest, FindsOverlappingWritesThatNoOrderExplains) {
  // a is over b at the first place, and under b at the second.
  EXPECT_FALSE(apply({write(0, 2048, 'a'), write(0, 512, 'b'), write(1024, 512, 'b')}));
  std::vector<Operation> reads = model_.settling_reads();
  ASSERT_EQ(reads.size(), 2U);
  for (Operation& op : reads) op.data.assign(op.length, std::byte{'b'});
  EXPECT_FALSE(model_.settle(reads)) << "the two writes of b are different writes";

  EXPECT_FALSE(apply({write(0, 1024, 'a'), write(512, 1024, 'b'), write(0, 1536, 'c')}));
  reads = model_.settling_reads();
  ASSERT_EQ(reads.size(), 1U);
  reads[0].data.assign(1536, std::byte{'a'});          // a over c
  std::memset(reads[0].data.data() + 512, 'b', 512);   // b over a
  std::memset(reads[0].data.data() + 1024, 'c', 512);  // c over b
  const auto finding = model_.settle(reads);
  ASSERT_TRUE(finding);
  EXPECT_NE(finding->text.find("order"), std::string::npos);
}

TEST_F(ModelTest, FindsOverlappingWritesThatAreMixed) {
  EXPECT_FALSE(apply({write(0, 1024, 'a'), write(0, 1024, 'b')}));
  std::vector<Operation> reads = model_.settling_reads();
  reads[0].data.assign(1024, std::byte{'a'});
  reads[0].data[1000] = std::byte{'b'};
  EXPECT_TRUE(model_.settle(reads));
}

TEST_F(ModelTest, LetsAFailedWriteBeDoneInPart) {
  Operation failed = write(0, 1024, 'a');
  failed.error = EIO;
  EXPECT_FALSE(apply({failed}));
  std::vector<Operation> reads = model_.settling_reads();
  ASSERT_EQ(reads.size(), 1U);
  reads[0].data.assign(1024, std::byte{0});
  std::memset(reads[0].data.data(), 'a', 512);
  EXPECT_FALSE(model_.settle(reads));
  EXPECT_TRUE(holds(0, 512, 'a'));
  EXPECT_TRUE(holds(512, 512, 0));
}

TEST_F(ModelTest, TakesARefusalToHaveNoEffect) {
  Operation refused = write(0, 1024, 'a');
  refused.error = EINVAL;
  EXPECT_FALSE(apply({refused}));
  EXPECT_TRUE(holds(0, 1024, 0));
}

TEST_F(ModelTest, KeepsWhatWasFlushedOverACrashAndLetsTheRestGo) {
  EXPECT_FALSE(apply({write(0, 512, 'a')}));
  EXPECT_FALSE(apply({plain(OpKind::kFlush)}));
  EXPECT_FALSE(apply({write(512, 512, 'b')}));
  model_.crashed();
  EXPECT_FALSE(settle(0));
  EXPECT_TRUE(holds(0, 512, 'a'));
  EXPECT_TRUE(holds(512, 512, 0));
}

TEST_F(ModelTest, DoesNotTakeAFlushToCoverWhatWasInFlightWithIt) {
  EXPECT_FALSE(apply({write(0, 512, 'a'), plain(OpKind::kFlush)}));
  model_.crashed();
  EXPECT_FALSE(settle(0));
}

TEST_F(ModelTest, DemandsThatAFuaWriteSurvives) {
  EXPECT_FALSE(apply({write(0, 512, 'a')}));
  EXPECT_FALSE(apply({write(0, 512, 'b', true)}));
  model_.crashed();
  EXPECT_TRUE(settle('a'));
}

TEST_F(ModelTest, DemandsWholeSectorsAfterACrash) {
  EXPECT_FALSE(apply({write(0, 1024, 'a')}));
  model_.crashed();
  std::vector<Operation> reads = model_.settling_reads();
  reads[0].data.assign(1024, std::byte{0});
  std::memset(reads[0].data.data(), 'a', 256);
  EXPECT_TRUE(model_.settle(reads));
}

TEST_F(ModelTest, LetsAFailedFlushLoseWhatLaterOnesClaim) {
  EXPECT_FALSE(apply({write(0, 512, 'a')}));
  Operation failed = plain(OpKind::kFlush);
  failed.error = EIO;
  EXPECT_FALSE(apply({failed}));
  EXPECT_FALSE(apply({write(512, 512, 'b')}));
  EXPECT_FALSE(apply({plain(OpKind::kFlush)}));
  model_.crashed();
  EXPECT_FALSE(settle(0));
  EXPECT_TRUE(holds(512, 512, 'b'));
}

/// A crash that could change nothing must not make later overlaps count as durable.
TEST_F(ModelTest, Regression_CrashWithNothingUnflushedLeavesNoTrace) {
  model_.crashed();
  EXPECT_FALSE(apply({write(0, 512, 'a'), write(0, 512, 'b')}));
  EXPECT_FALSE(settle('b'));
  model_.crashed();
  EXPECT_FALSE(settle(0));
}

Operation extents(std::vector<Extent> found) {
  Operation op;
  op.kind = OpKind::kExtents;
  op.length = 4096;
  op.extents = std::move(found);
  return op;
}

TEST_F(ModelTest, ChecksExtents) {
  EXPECT_FALSE(apply({write(1024, 512, 'a')}));
  const Extent hole{.length = 1024, .hole = true, .zero = true};
  const Extent data{.length = 512, .hole = false, .zero = false};
  const Extent rest{.length = 2560, .hole = false, .zero = true};
  EXPECT_FALSE(apply({extents({hole, data, rest})}));
  EXPECT_FALSE(apply({extents({hole})}));
  EXPECT_TRUE(apply({extents({})}));
  EXPECT_TRUE(apply({extents({hole, data, Extent{}})}));
  EXPECT_TRUE(apply({extents({hole, hole})})) << "neighbours of one kind";
  EXPECT_TRUE(apply({extents({{.length = 4096, .hole = false, .zero = true}})}));
  EXPECT_TRUE(apply({extents({{.length = kSize + 1, .hole = false, .zero = false}})}));
  EXPECT_TRUE(apply({extents({{.length = 4096}, hole})})) << "more than was asked for";
}

TEST_F(ModelTest, LetsExtentsSeeAZeroingInFlight) {
  EXPECT_FALSE(apply({write(0, 4096, 'a')}));
  const Extent zero{.length = 4096, .hole = true, .zero = true};
  EXPECT_FALSE(apply({plain(OpKind::kTrim, 0, 4096), extents({zero})}));
  EXPECT_TRUE(apply({write(0, 4096, 'b'), read(0, 4096, 'b')}) == std::nullopt);
  EXPECT_TRUE(apply({extents({zero})}));
}

}  // namespace
}  // namespace usbd::testing
