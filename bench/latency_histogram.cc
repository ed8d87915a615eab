// SPDX-License-Identifier: Apache-2.0
//
// See latency_histogram.h. Values below 64 have a bucket each. Above, a value's bucket is its
// exponent (position of the highest bit) and the six bits that follow that bit.

#include "bench/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace usbd::bench {
namespace {

constexpr unsigned kSubBits = 6;
constexpr uint64_t kSubCount = 1U << kSubBits;
constexpr size_t kBucketCount = (64 - kSubBits + 1) * kSubCount;

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(kBucketCount) {}

size_t LatencyHistogram::bucket_of(uint64_t duration) {
  if (duration < kSubCount) return duration;
  const auto exponent = static_cast<unsigned>(std::bit_width(duration)) - 1;
  const unsigned shift = exponent - kSubBits;
  return (uint64_t{shift + 1} << kSubBits) + ((duration >> shift) & (kSubCount - 1));
}

double LatencyHistogram::middle_of(size_t bucket) {
  if (bucket < kSubCount) return static_cast<double>(bucket);
  const auto shift = static_cast<int>(bucket >> kSubBits) - 1;
  const auto mantissa = static_cast<double>(kSubCount + (bucket & (kSubCount - 1)));
  return std::ldexp(mantissa + 0.5, shift);
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  count_ += other.count_;
  sum_ += other.sum_;
  largest_ = std::max(largest_, other.largest_);
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
}

double LatencyHistogram::mean() const {
  return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
}

double LatencyHistogram::percentile(double share) const {
  if (count_ == 0) return 0;
  const auto wanted = static_cast<uint64_t>(std::ceil(share * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= wanted && seen > 0) return middle_of(i);
  }
  return static_cast<double>(largest_);
}

}  // namespace usbd::bench
