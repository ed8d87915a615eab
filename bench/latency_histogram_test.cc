// SPDX-License-Identifier: Apache-2.0
//
// Tests of LatencyHistogram against what sorting all values says.

#include "bench/latency_histogram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "bench/pattern.h"

namespace usbd::bench {
namespace {

constexpr double kErrorMax = 0.016;

TEST(LatencyHistogram, IsZeroWhenEmpty) {
  const LatencyHistogram empty;
  EXPECT_EQ(empty.count(), 0U);
  EXPECT_EQ(empty.mean(), 0);
  EXPECT_EQ(empty.percentile(0.5), 0);
}

TEST(LatencyHistogram, KeepsSmallValuesExactly) {
  LatencyHistogram histogram;
  for (uint64_t value = 1; value <= 10; ++value) histogram.add(value);
  EXPECT_EQ(histogram.percentile(0.5), 5);
  EXPECT_EQ(histogram.percentile(1), 10);
  EXPECT_EQ(histogram.percentile(0.01), 1);
  EXPECT_DOUBLE_EQ(histogram.mean(), 5.5);
}

TEST(LatencyHistogram, AgreesWithSortedValuesOfEverySize) {
  RandomStream random(7);
  LatencyHistogram histogram;
  std::vector<uint64_t> values;
  for (int i = 0; i < 100'000; ++i) {
    values.push_back(random.next() >> (20 + random.below(40)));
    histogram.add(values.back());
  }
  std::ranges::sort(values);
  for (const double share : {0.001, 0.1, 0.5, 0.9, 0.99, 0.9999, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(share * 100'000)) - 1;
    const auto exact = static_cast<double>(values[rank]);
    EXPECT_NEAR(histogram.percentile(share), exact, exact * kErrorMax) << share;
  }
  EXPECT_EQ(histogram.largest(), values.back());
}

TEST(LatencyHistogram, TakesTheLargestValueThereIs) {
  LatencyHistogram histogram;
  histogram.add(~uint64_t{0});
  EXPECT_NEAR(histogram.percentile(0.5), 0x1p64, 0x1p64 * kErrorMax);
}

TEST(LatencyHistogram, MergesToTheSameAsAddingAll) {
  LatencyHistogram all;
  LatencyHistogram first;
  LatencyHistogram second;
  for (uint64_t value = 0; value < 5000; value += 3) {
    all.add(value * value);
    (value % 2 == 0 ? first : second).add(value * value);
  }
  first.merge(second);
  EXPECT_EQ(first.count(), all.count());
  EXPECT_EQ(first.mean(), all.mean());
  EXPECT_EQ(first.largest(), all.largest());
  EXPECT_EQ(first.percentile(0.9), all.percentile(0.9));
}

}  // namespace
}  // namespace usbd::bench
