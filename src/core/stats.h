// SPDX-License-Identifier: Apache-2.0
//
// Counters of one export: operations, bytes, errors and latencies per kind of operation, and what
// is in flight. Each loop writes its own set, so that counting costs no locked instruction; a
// snapshot adds the sets up and may be a little behind.

#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "usbd/loop.h"

namespace usbd {

enum class Op : uint8_t { kRead, kWrite, kFlush, kTrim, kWriteZeroes, kCache, kExtents };
inline constexpr size_t kOps = 7;
/// "read", "write", "flush", "trim", "write_zeroes", "cache", "extents".
const char* op_name(Op op);

/// Latencies in buckets of a quarter of a power of two (an error of at most 25 %).
/// Units: nanoseconds.
class LatencyHistogram {
 public:
  static constexpr size_t kBuckets = 160;

  static constexpr size_t bucket_of(uint64_t ns) {
    if (ns < 4) return ns;
    const auto octave = static_cast<size_t>(std::bit_width(ns)) - 1;
    const size_t bucket = (octave - 1) * 4 + ((ns >> (octave - 2)) & 3);
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }
  /// The largest latency that falls into `bucket`.
  static constexpr uint64_t upper_bound(size_t bucket) {
    if (bucket < 4) return bucket;
    const size_t octave = bucket / 4 + 1;
    return ((4 + bucket % 4 + 1) << (octave - 2)) - 1;
  }

  std::array<uint64_t, kBuckets> counts{};

  /// The latency that `share` (0 to 1) of all operations did not exceed; 0 if there were none.
  [[nodiscard]] uint64_t quantile(double share) const;
};

/// What a snapshot says of one kind of operation.
struct OpStats {
  uint64_t operations = 0;  ///< answered, with or without an error
  uint64_t bytes = 0;       ///< of those that succeeded
  uint64_t errors = 0;
  uint64_t total_ns = 0;
  LatencyHistogram latency;
};

struct StatsSnapshot {
  std::array<OpStats, kOps> ops;
  uint64_t in_flight = 0;

  [[nodiscard]] const OpStats& of(Op op) const { return ops[static_cast<size_t>(op)]; }
  /// One line for people: "read 12 (48 KiB), write ... , flush ..., errors 0".
  [[nodiscard]] std::string summary() const;
};

/// The counters of one loop. Threads: one writer; any reader.
class alignas(128) LoopStats {
 public:
  /// Counts `operations` of one kind that took `latency` each and moved `bytes` together.
  void record(Op op, uint64_t operations, uint64_t bytes, Nanos latency) {
    Counters& counters = counters_[static_cast<size_t>(op)];
    const auto ns = static_cast<uint64_t>(latency.count() > 0 ? latency.count() : 0);
    bump(counters.operations, operations);
    bump(counters.bytes, bytes);
    bump(counters.total_ns, ns * operations);
    bump(counters.latency[LatencyHistogram::bucket_of(ns)], operations);
  }
  void record_error(Op op, Nanos latency) {
    record(op, 1, 0, latency);
    bump(counters_[static_cast<size_t>(op)].errors, 1);
  }
  void started(uint64_t operations) { bump(started_, operations); }
  void finished(uint64_t operations) { bump(finished_, operations); }

  void add_to(StatsSnapshot& snapshot) const;

 private:
  using Counter = std::atomic<uint64_t>;
  struct Counters {
    Counter operations{0};
    Counter bytes{0};
    Counter errors{0};
    Counter total_ns{0};
    std::array<Counter, LatencyHistogram::kBuckets> latency{};
  };
  static void bump(Counter& counter, uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  std::array<Counters, kOps> counters_;
  Counter started_{0};
  Counter finished_{0};
};

/// The counters of one export, a set per loop.
class Stats {
 public:
  explicit Stats(unsigned loops);
  /// Range: `loop` is the index of a loop of the runtime.
  LoopStats& of_loop(unsigned loop) { return *loops_[loop]; }
  [[nodiscard]] StatsSnapshot snapshot() const;

 private:
  std::vector<std::unique_ptr<LoopStats>> loops_;
};

}  // namespace usbd
