// SPDX-License-Identifier: Apache-2.0
//
// Tests of Workload and of the pattern that verifying runs rely on.

#include "bench/workload.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace usbd::bench {
namespace {

using Kind = WorkloadOptions::Kind;

constexpr uint64_t kSize = 1 << 20;
constexpr uint32_t kBlock = 4096;
const ByteRange kAll(0, kSize);

WorkloadOptions options_of(Kind kind, bool sequential) {
  WorkloadOptions options;
  options.kind = kind;
  options.sequential = sequential;
  options.block_size = kBlock;
  return options;
}

std::vector<uint64_t> offsets_of(Workload workload, size_t count) {
  std::vector<uint64_t> offsets;
  while (offsets.size() < count) offsets.push_back(workload.next()->offset);
  return offsets;
}

TEST(Workload, FillWritesEveryBlockOnceAndEnds) {
  WorkloadOptions options = options_of(Kind::kWrite, true);
  options.fill = true;
  Workload workload(options, kSize, ByteRange(kBlock, 3 * kBlock), 0);
  for (uint64_t offset = kBlock; offset < 4 * kBlock; offset += kBlock) {
    const std::optional<Operation> operation = workload.next();
    ASSERT_TRUE(operation);
    EXPECT_EQ(operation->command, nbd::Command::kWrite);
    EXPECT_EQ(operation->offset, offset);
  }
  EXPECT_FALSE(workload.next());
  EXPECT_FALSE(workload.next());
}

TEST(Workload, RandomOffsetsReachEveryBlockAndNoFurther) {
  const std::vector<uint64_t> offsets =
      offsets_of(Workload(options_of(Kind::kRead, false), kSize, kAll, 0), 20'000);
  const std::set<uint64_t> distinct(offsets.begin(), offsets.end());
  EXPECT_EQ(distinct.size(), kSize / kBlock);
  EXPECT_EQ(*distinct.rbegin(), kSize - kBlock);
  for (const uint64_t offset : distinct) EXPECT_EQ(offset % kBlock, 0U);
}

TEST(Workload, SameSeedSameOperationsOtherSeedOrStreamOthers) {
  WorkloadOptions options = options_of(Kind::kRead, false);
  const std::vector<uint64_t> offsets = offsets_of(Workload(options, kSize, kAll, 0), 100);
  EXPECT_EQ(offsets, offsets_of(Workload(options, kSize, kAll, 0), 100));
  EXPECT_NE(offsets, offsets_of(Workload(options, kSize, kAll, 1), 100));
  options.seed = 2;
  EXPECT_NE(offsets, offsets_of(Workload(options, kSize, kAll, 0), 100));
}

TEST(Workload, MixKeepsTheShareOfReads) {
  WorkloadOptions options = options_of(Kind::kMix, false);
  options.read_percent = 30;
  Workload workload(options, kSize, kAll, 0);
  int reads = 0;
  for (int i = 0; i < 10'000; ++i) reads += workload.next()->command == nbd::Command::kRead;
  EXPECT_NEAR(reads, 3000, 200);
}

TEST(Workload, FlushesAfterTheGivenNumberOfWrites) {
  WorkloadOptions options = options_of(Kind::kWrite, true);
  options.flush_every = 3;
  Workload workload(options, kSize, kAll, 0);
  for (int i = 0; i < 40; ++i) {
    const Operation operation = *workload.next();
    const bool is_flush = operation.command == nbd::Command::kFlush;
    EXPECT_EQ(is_flush, i % 4 == 3) << i;
    EXPECT_EQ(operation.length, is_flush ? 0 : kBlock);
  }
}

TEST(Workload, UniqueBlocksDifferUnlessDuplicatesAreAskedFor) {
  WorkloadOptions options = options_of(Kind::kWrite, true);
  options.data = DataKind::kUnique;
  for (const uint64_t percent : {0U, 100U}) {
    options.duplicate_percent = percent;
    Workload workload(options, kSize, kAll, 0);
    std::vector<std::byte> block(kBlock);
    std::set<std::vector<std::byte>> seen;
    for (int i = 0; i < 1000; ++i) {
      workload.prepare(block, 0);
      seen.insert(block);
    }
    EXPECT_EQ(seen.size(), percent == 0 ? 1000U : 64U);
  }
}

TEST(Pattern, IsTiedToItsOffsetItsSeedAndEveryByte) {
  std::vector<std::byte> data(kBlock);
  fill_pattern(data, 1, 8 * kBlock);
  EXPECT_TRUE(has_pattern(data, 1, 8 * kBlock));
  EXPECT_FALSE(has_pattern(data, 2, 8 * kBlock));
  EXPECT_FALSE(has_pattern(data, 1, 9 * kBlock));
  for (const size_t at : {size_t{0}, size_t{2049}, data.size() - 1}) {
    data[at] ^= std::byte{1};
    EXPECT_FALSE(has_pattern(data, 1, 8 * kBlock)) << at;
    data[at] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace usbd::bench
