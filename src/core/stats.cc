// SPDX-License-Identifier: Apache-2.0
//
// Adding counters up and saying them.

#include "core/stats.h"

#include <fmt/format.h>

#include "base/assert.h"

namespace usbd {

const char* op_name(Op op) {
  static constexpr std::array<const char*, kOps> kNames = {
      "read", "write", "flush", "trim", "write_zeroes", "cache", "extents"};
  return kNames[static_cast<size_t>(op)];
}

uint64_t LatencyHistogram::quantile(double share) const {
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  if (total == 0) return 0;
  const auto wanted = static_cast<uint64_t>(share * static_cast<double>(total));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += counts[bucket];
    if (seen > wanted || seen == total) return upper_bound(bucket);
  }
  return upper_bound(kBuckets - 1);
}

void LoopStats::add_to(StatsSnapshot& snapshot) const {
  const auto value = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
  for (size_t op = 0; op < kOps; ++op) {
    OpStats& sum = snapshot.ops[op];
    const Counters& counters = counters_[op];
    sum.operations += value(counters.operations);
    sum.bytes += value(counters.bytes);
    sum.errors += value(counters.errors);
    sum.total_ns += value(counters.total_ns);
    for (size_t bucket = 0; bucket < LatencyHistogram::kBuckets; ++bucket) {
      sum.latency.counts[bucket] += value(counters.latency[bucket]);
    }
  }
  snapshot.in_flight += value(started_) - value(finished_);
}

Stats::Stats(unsigned loops) {
  USBD_ASSERT(loops > 0);
  for (unsigned i = 0; i < loops; ++i) loops_.push_back(std::make_unique<LoopStats>());
}

StatsSnapshot Stats::snapshot() const {
  StatsSnapshot result;
  for (const auto& loop : loops_) loop->add_to(result);
  return result;
}

std::string StatsSnapshot::summary() const {
  std::string line;
  uint64_t errors = 0;
  for (size_t op = 0; op < kOps; ++op) {
    const OpStats& stats = ops[op];
    errors += stats.errors;
    fmt::format_to(std::back_inserter(line), "{} {}", op_name(static_cast<Op>(op)),
                   stats.operations);
    if (stats.bytes > 0) fmt::format_to(std::back_inserter(line), " ({} bytes)", stats.bytes);
    line += ", ";
  }
  return line + fmt::format("errors {}, in flight {}", errors, in_flight);
}

}  // namespace usbd
