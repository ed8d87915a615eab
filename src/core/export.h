// SPDX-License-Identifier: Apache-2.0
//
// Export: one served device. Everything a frontend does to a device goes through here: requests are
// checked against size and geometry, overlapping changes are kept apart (RangeLocks), what the
// device lacks is emulated once for all frontends, and everything is counted.
//
// A frontend asks check() first. It then tries the ways that need no coroutine (direct memory,
// the try_ calls), and falls back on the tasks. Changes are claimed in `locks()` before they start:
// claim_of() says the range to claim, and the tasks take the claim over.
//
// One Device has one Export, which any number of frontends and connections serve at once.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "core/range_locks.h"
#include "core/slots.h"
#include "core/stats.h"
#include "usbd/device.h"

namespace usbd {

/// One request as a frontend has parsed it.
struct Request {
  Op op = Op::kRead;
  bool fua = false;
  bool no_hole = false;
  bool fast_only = false;
  ByteRange range;
};

/// What a frontend tells its clients. Units: bytes.
struct ExportInfo {
  std::string name;
  std::string description;
  uint64_t size = 0;
  /// What requests must be multiples of.
  uint32_t block_size_min = 1;
  uint32_t block_size_preferred = 4096;
  /// The logical block size for kernels.
  uint32_t block_size_logical = 4096;
  /// Largest payload of a read or write.
  uint32_t payload_max = 0;
  bool read_only = false;
  bool can_flush = true;
  bool can_fua = true;
  bool can_trim = false;
  bool can_write_zeroes = true;
  bool can_fast_zero = false;
  bool can_multi_connection = false;
  bool can_cache = true;
};

/// Whoever sent a request; asked whether it still can be answered. A kernel that has given up a
/// socket has sent its requests again on another: those of the first must no longer be done.
class Requester {
 public:
  /// Threads: the loop the request belongs to.
  [[nodiscard]] virtual bool is_gone() = 0;

 protected:
  ~Requester() = default;
};

class Export {
 public:
  struct Options {
    /// What clients ask for; the empty name always works too.
    std::string name;
    std::string description;
    bool read_only = false;
    /// Refuse requests that are not multiples of the device's block size instead of emulating.
    bool strict_alignment = false;
    /// How many loops serve it (Stats has a set for each).
    unsigned loops = 1;
  };

  /// Lifetime: `device` outlives the export.
  Export(Device& device, const Options& options);

  [[nodiscard]] const ExportInfo& info() const { return info_; }
  [[nodiscard]] Device& device() { return device_; }
  [[nodiscard]] Stats& stats() { return stats_; }
  [[nodiscard]] RangeLocks& locks() { return locks_; }

  /// 0 if the request may be done, else the errno value to answer: EPERM (change of a read-only
  /// export), EINVAL (empty, unaligned, too long, beyond the end, an operation that the export does
  /// not have), ENOSPC (write or zeroing beyond the end).
  [[nodiscard]] int check(const Request& request) const;

  /// Whether the request changes data, so that its range is claimed first.
  [[nodiscard]] static bool changes(Op op) {
    return op == Op::kWrite || op == Op::kTrim || op == Op::kWriteZeroes;
  }
  /// The range to claim for a change: whole blocks of the device. Empty: the task claims piece by
  /// piece (long trims and zeroings), nothing is to be claimed before.
  [[nodiscard]] ByteRange claim_of(const Request& request) const;

  /// The device's memory for the range, if a frontend may send from it.
  [[nodiscard]] MutableBytes direct(ByteRange range) {
    return has_direct_ ? device_.direct(range) : MutableBytes();
  }
  /// The device's memory for the range of a write, if a frontend may receive its payload there; it
  /// then calls device().direct_written(). Order: the caller holds the claim.
  [[nodiscard]] MutableBytes direct_for(const Request& write) {
    if (write.fua && capabilities_.fua != Support::kNative) return {};
    return direct(write.range);
  }
  /// read(), write() without waiting; empty: use the task. Range: check() said 0.
  /// Order: the caller holds the claim of a write; the claim stays with it.
  [[nodiscard]] std::optional<Result<void>> try_read(ByteRange range, MutableBytes data) {
    if (!is_aligned(range) || range.length > geometry_.max_io) return std::nullopt;
    return device_.try_read(range.offset, data);
  }
  [[nodiscard]] std::optional<Result<void>> try_write(const Request& request, Bytes data) {
    if (!is_aligned(request.range) || request.range.length > geometry_.max_io ||
        (request.fua && capabilities_.fua != Support::kNative)) {
      return std::nullopt;
    }
    return device_.try_write(request.range.offset, data, WriteFlags{.fua = request.fua});
  }
  [[nodiscard]] std::optional<Result<void>> try_flush() { return device_.try_flush(); }

  /// Fills `data` from the range. Range: check() said 0.
  Task<Result<void>> read(ByteRange range, MutableBytes data);
  /// Does a change. Range: check() said 0.
  /// Order:    `claimed`: the caller holds claim_of(request), and gives it to the task, which
  ///           releases it; otherwise the task claims. After each claim, requester.is_gone() ends
  ///           the request with kCanceled before the device sees it.
  /// Lifetime: `data` (the payload of a write, else empty) and `requester` outlive the task.
  Task<Result<void>> change(Request request, Bytes data, bool claimed, Requester& requester);
  Task<Result<void>> flush();
  Task<Result<void>> cache(ByteRange range);
  /// Extents that cover the range from its start, clipped to it; at most `extents_max`.
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max);

  /// Logs a failed request, rate-limited. Threads: any.
  void log_failure(Op op, ByteRange range, const Error& error, Nanos now);

 private:
  [[nodiscard]] bool is_aligned(ByteRange range) const {
    return ((range.offset | range.length) & (geometry_.block_size - 1)) == 0;
  }
  [[nodiscard]] ByteRange whole_blocks(ByteRange range) const;

  Task<Result<void>> read_aligned(ByteRange range, MutableBytes data);
  Task<Result<void>> write_aligned(ByteRange range, Bytes data, bool fua);
  Task<Result<void>> apply_write(Request request, Bytes data);
  Task<Result<void>> modify_block(ByteRange part, Bytes data);
  Task<Result<void>> apply_clearing(Request piece);
  Task<Result<void>> clear_aligned(Request piece);
  Task<Result<void>> write_zero_bytes(ByteRange range, bool fua);
  Task<Result<void>> apply(Request request, Bytes data);
  Task<Result<std::vector<Extent>>> find_extents(ByteRange range, size_t extents_max);
  Task<Result<void>> change_in_pieces(Request request, Requester& requester);

  Device& device_;
  const Geometry geometry_;
  const Capabilities capabilities_;
  const bool has_direct_;
  ExportInfo info_;
  RangeLocks locks_;
  /// Each list of extents takes memory that no budget knows.
  Slots extents_slots_{limits::kExtentsInFlightMax};
  Stats stats_;
  log::Limiter failure_log_;
};

}  // namespace usbd
