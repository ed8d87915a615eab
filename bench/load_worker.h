// SPDX-License-Identifier: Apache-2.0
//
// LoadWorker: one thread of the load generator with its connections; LoadPhase: how the main thread
// tells all of them whether to warm up, to count, or to finish, and hears of their end.

#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <poll.h>

#include "bench/load_connection.h"
#include "usbd/result.h"

namespace usbd::bench {

/// Threads: any.
class LoadPhase {
 public:
  enum class Phase { kRamp, kMeasure, kDrain };

  void set(Phase phase) { phase_.store(phase, std::memory_order_relaxed); }
  [[nodiscard]] Phase get() const { return phase_.load(std::memory_order_relaxed); }

  /// A worker has ended.
  void count_end();
  /// Waits until `workers` have ended, or for `seconds` if that is given. Returns whether they
  /// have.
  bool wait_for_ends(size_t workers, std::optional<double> seconds);

 private:
  std::atomic<Phase> phase_{Phase::kRamp};
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t ended_ = 0;
};

/// Threads: the constructing one, then run()'s, then the constructing one again.
class LoadWorker {
 public:
  /// A server that is silent for `patience_seconds` while requests are outstanding has failed.
  LoadWorker(bool busy_poll, uint64_t patience_seconds)
      : busy_poll_(busy_poll), patience_ms_(static_cast<int>(patience_seconds * 1000)) {}

  void add(Socket socket, const LoadConnectionOptions& options, Workload workload);
  /// Keeps the connections busy until the phase is kDrain, or their workloads end, and all
  /// requests are answered. Says so to `phase`.
  void run(LoadPhase& phase);
  /// Takes leave of the server on all connections, after a run() that did not end early. Not part
  /// of run(), because a server may end a process with its connection, and so its CPU time would be
  /// gone before it has been read.
  Result<void> disconnect();

  /// Why run() ended early, if it did.
  [[nodiscard]] const Result<void>& outcome() const { return outcome_; }
  [[nodiscard]] const LoadCounters& counters() const { return counters_; }

 private:
  Result<void> run_single(const LoadPhase& phase);
  Result<void> run_several(const LoadPhase& phase);
  Result<void> refill(LoadConnection& connection, const LoadPhase& phase);
  Result<void> wait_and_receive(LoadConnection& connection);
  Result<void> poll_all(std::vector<pollfd>& polled);

  const bool busy_poll_;
  const int patience_ms_;
  std::vector<std::unique_ptr<LoadConnection>> connections_;
  LoadCounters counters_;
  Result<void> outcome_;
};

}  // namespace usbd::bench
