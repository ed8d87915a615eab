// SPDX-License-Identifier: Apache-2.0
//
// Buckets that leave no gap, quantiles that err by a quarter at most, counters that add up.

#include "core/stats.h"

#include <algorithm>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;

TEST(LatencyHistogram, PutsEveryLatencyIntoTheBucketThatEndsNotBeforeIt) {
  for (size_t bucket = 0; bucket + 1 < LatencyHistogram::kBuckets; ++bucket) {
    const uint64_t last = LatencyHistogram::upper_bound(bucket);
    EXPECT_EQ(LatencyHistogram::bucket_of(last), bucket) << last;
    EXPECT_EQ(LatencyHistogram::bucket_of(last + 1), bucket + 1) << last;
  }
}

TEST(LatencyHistogram, ErrsByAQuarterAtMost) {
  SeededRng rng(7);
  const uint64_t largest = LatencyHistogram::upper_bound(LatencyHistogram::kBuckets - 2);
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t ns = std::min(rng.next() >> rng.below(64), largest);
    const uint64_t shown = LatencyHistogram::upper_bound(LatencyHistogram::bucket_of(ns));
    ASSERT_GE(shown, ns);
    ASSERT_LE(static_cast<double>(shown), static_cast<double>(ns) * 1.25);
  }
}

TEST(LatencyHistogram, ReachesBeyondTenMinutesAndKeepsWhatIsLonger) {
  EXPECT_GT(LatencyHistogram::upper_bound(LatencyHistogram::kBuckets - 2),
            static_cast<uint64_t>(Nanos(10min).count()));
  EXPECT_EQ(LatencyHistogram::bucket_of(UINT64_MAX), LatencyHistogram::kBuckets - 1);
}

TEST(LatencyHistogram, AnswersQuantilesOfASortedListWithinAQuarter) {
  SeededRng rng(3);
  LatencyHistogram histogram;
  std::vector<uint64_t> sorted;
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t ns = 100 + (rng.next() >> (40 + rng.below(20)));
    sorted.push_back(ns);
    ++histogram.counts[LatencyHistogram::bucket_of(ns)];
  }
  std::ranges::sort(sorted);
  for (const double share : {0.0, 0.5, 0.9, 0.99, 0.999}) {
    const uint64_t exact = sorted[static_cast<size_t>(share * 10'000)];
    const uint64_t shown = histogram.quantile(share);
    EXPECT_GE(shown, exact) << share;
    EXPECT_LE(static_cast<double>(shown), static_cast<double>(exact) * 1.25) << share;
  }
  EXPECT_GE(histogram.quantile(1.0), sorted.back());
  EXPECT_EQ(LatencyHistogram().quantile(0.5), 0U);
}

TEST(Stats, AddsTheLoopsUp) {
  Stats stats(2);
  stats.of_loop(0).record(Op::kRead, 3, 12288, 1us);
  stats.of_loop(1).record(Op::kRead, 1, 4096, 5us);
  stats.of_loop(1).record_error(Op::kWrite, 2us);
  stats.of_loop(0).started(5);
  stats.of_loop(1).finished(2);  // the request went to the other loop's set: only sums count
  const StatsSnapshot snapshot = stats.snapshot();
  EXPECT_EQ(snapshot.of(Op::kRead).operations, 4U);
  EXPECT_EQ(snapshot.of(Op::kRead).bytes, 16384U);
  EXPECT_EQ(snapshot.of(Op::kRead).errors, 0U);
  EXPECT_EQ(snapshot.of(Op::kRead).total_ns, 8000U);
  EXPECT_EQ(snapshot.of(Op::kWrite).operations, 1U);
  EXPECT_EQ(snapshot.of(Op::kWrite).bytes, 0U);
  EXPECT_EQ(snapshot.of(Op::kWrite).errors, 1U);
  EXPECT_EQ(snapshot.of(Op::kFlush).operations, 0U);
  EXPECT_EQ(snapshot.in_flight, 3U);
  EXPECT_EQ(snapshot.of(Op::kRead).latency.quantile(0),
            LatencyHistogram::upper_bound(LatencyHistogram::bucket_of(1000)));
}

TEST(Stats, CountsATimeThatWentBackwardsAsNone) {
  Stats stats(1);
  stats.of_loop(0).record(Op::kFlush, 1, 0, Nanos(-5));
  EXPECT_EQ(stats.snapshot().of(Op::kFlush).total_ns, 0U);
}

TEST(Stats, SaysItselfInOneLine) {
  Stats stats(1);
  stats.of_loop(0).record(Op::kWrite, 2, 8192, 1us);
  stats.of_loop(0).record_error(Op::kTrim, 1us);
  const std::string line = stats.snapshot().summary();
  EXPECT_NE(line.find("read 0, "), std::string::npos) << line;
  EXPECT_NE(line.find("write 2 (8192 bytes), "), std::string::npos) << line;
  EXPECT_NE(line.find("trim 1, "), std::string::npos) << line;
  EXPECT_NE(line.find("errors 1, in flight 0"), std::string::npos) << line;
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

TEST(Stats, MayBeReadWhileItIsWritten) {
  constexpr uint64_t kOperations = 20'000;
  Stats stats(2);
  std::vector<std::thread> writers;
  for (unsigned loop = 0; loop < 2; ++loop) {
    writers.emplace_back([&stats, loop] {
      for (uint64_t i = 0; i < kOperations; ++i) stats.of_loop(loop).record(Op::kRead, 1, 1, 1us);
    });
  }
  uint64_t before = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t now = stats.snapshot().of(Op::kRead).operations;
    EXPECT_GE(now, before);
    before = now;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(stats.snapshot().of(Op::kRead).operations, 2 * kOperations);
}

}  // namespace
}  // namespace usbd
