// SPDX-License-Identifier: Apache-2.0
//
// Workload: which operation a connection issues next, and with what data. Each connection has its
// own, so that the same seed gives the same operations however the threads are scheduled.

#pragma once

#include <cstdint>
#include <optional>

#include "bench/pattern.h"
#include "frontends/nbd/protocol.h"
#include "usbd/buffer.h"

namespace usbd::bench {

/// What the payload of a write is.
enum class DataKind : uint8_t {
  kStatic,   ///< The same random bytes for all writes: costs nothing.
  kPattern,  ///< pattern.h: can be verified.
  kUnique,   ///< Every 4 KiB block differs from all others, but for the duplicates asked for.
};

struct WorkloadOptions {
  enum class Kind : uint8_t { kRead, kWrite, kMix, kTrim, kZero, kFlush };
  Kind kind = Kind::kRead;
  bool sequential = false;
  /// Goes through every block exactly once, in order, and ends.
  bool fill = false;
  /// kMix: how many of 100 operations are reads.
  uint64_t read_percent = 70;
  /// Units: bytes; a multiple of 8.
  uint32_t block_size = 4096;
  /// A flush after so many writes; 0: none.
  uint64_t flush_every = 0;
  DataKind data = DataKind::kStatic;
  /// kUnique: how many of 100 blocks are one of 64 common ones.
  uint64_t duplicate_percent = 0;
  uint64_t seed = 1;

  [[nodiscard]] bool writes() const { return kind == Kind::kWrite || kind == Kind::kMix; }
};

struct Operation {
  nbd::Command command = nbd::Command::kRead;
  uint64_t offset = 0;
  /// Units: bytes. 0 for a flush.
  uint32_t length = 0;
};

class Workload {
 public:
  /// Range: sequential operations stay within `sequential_range`, random ones use all of
  ///        `device_size`; both hold at least one block. `stream` differs between connections.
  Workload(const WorkloadOptions& options, uint64_t device_size, ByteRange sequential_range,
           uint64_t stream);

  /// The next operation; empty once a fill has issued all of its blocks.
  std::optional<Operation> next();

  /// Puts what a write at `offset` carries into `data`; leaves static data alone.
  void prepare(MutableBytes data, uint64_t offset);

 private:
  nbd::Command next_command();
  uint64_t next_offset();
  void stamp_unique(MutableBytes data);

  const WorkloadOptions options_;
  const uint64_t block_count_;
  const ByteRange sequential_range_;
  uint64_t sequential_offset_;
  const uint64_t stream_;
  uint64_t unique_counter_ = 0;
  uint64_t writes_since_flush_ = 0;
  bool fill_done_ = false;
  RandomStream random_;
};

}  // namespace usbd::bench
