// SPDX-License-Identifier: Apache-2.0
//
// Subject: one served volume as the conformance suite sees it, whatever serves it: a Device in this
// process, an NBD server, a block device node of the kernel. It carries out operations and says
// what came of them; all judging is done by the suite.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "usbd/buffer.h"
#include "usbd/device.h"
#include "usbd/result.h"

namespace usbd::testing {

enum class OpKind : uint8_t { kRead, kWrite, kTrim, kWriteZeroes, kFlush, kCache, kExtents };
inline constexpr size_t kOpKinds = 7;
/// "read", "write", "trim", "write_zeroes", "flush", "cache", "extents".
const char* op_kind_name(OpKind kind);

/// One request and, once it has been carried out, its answer.
struct Operation {
  OpKind kind = OpKind::kRead;
  /// Which of the subject's connections sends it.
  unsigned connection = 0;
  /// Not checked: the suite sends ranges beyond the end on purpose, also such that wrap.
  uint64_t offset = 0;
  uint64_t length = 0;
  bool fua = false;
  bool no_hole = false;
  bool fast_only = false;
  /// kWrite: what to write; kRead: filled by the subject. `length` bytes, or none if the request is
  /// one that must be refused for its length.
  std::vector<std::byte> data;

  /// The answer: 0, or the errno value of the error reply.
  int error = 0;
  /// The answer of kExtents: from `offset` on.
  std::vector<Extent> extents;
};

/// What a subject can do and promises; does not change while it is open.
struct SubjectTraits {
  std::string name;
  /// Units: bytes.
  uint64_t size = 0;
  /// Valid offsets and lengths are multiples of it. Range: a power of two.
  uint32_t block_size = 1;
  /// The largest read or write that is valid. Units: bytes.
  uint32_t payload_max = 1U << 20;
  /// Range: at least 1.
  unsigned connections = 1;
  bool read_only = false;
  bool can_flush = true;
  bool can_fua = true;
  bool can_trim = true;
  bool can_write_zeroes = true;
  bool can_fast_zero = false;
  bool can_extents = true;
  bool can_cache = true;
  /// Whether flush() and FUA on one connection cover what completed on the others.
  bool multi_connection = true;
  /// Whether a trimmed range reads as zeros, which usbd promises and others need not.
  bool trim_zeroes = true;
  /// Whether overlapping changes that were in flight together end as if one came after the other,
  /// which usbd promises and others need not.
  bool orders_overlaps = true;
  /// Whether error numbers are exactly those that usbd promises; otherwise any error will do.
  bool exact_errors = true;
  /// Whether a change that begins before the end and reaches beyond it is refused as a whole.
  bool refuses_across_end = true;
  /// Whether a request with no bytes can be sent, and is refused.
  bool refuses_empty = true;
  /// Whether a request longer than payload_max can be sent, and is refused.
  bool refuses_oversized = true;
  /// Whether neighbouring extents always differ in kind.
  bool merges_extents = true;
  /// Whether faults are injected: a valid request may fail with EIO or ENOSPC, and a change that
  /// failed may have been done in part.
  bool may_fail = false;
  /// Whether reopen() is possible and what was flushed is found again.
  bool can_reopen = false;
  /// Whether crash() is possible.
  bool can_crash = false;
};

/// Threads: the suite calls from one thread at a time.
class Subject {
 public:
  virtual ~Subject() = default;

  [[nodiscard]] virtual SubjectTraits traits() const = 0;

  /// Sends all of `batch`, in order, without waiting for the answer of one before sending the next
  /// on another connection or (as far as the subject can) on the same; returns when all have been
  /// answered, with the answers stored.
  /// Errors: only if answers could not be had (connection lost, protocol violated, no answer in
  ///         time): that alone is a failure. A request that was refused is an answer.
  virtual Result<void> execute(std::span<Operation> batch) = 0;

  /// Closes the volume properly and opens it again. Errors: it could not be.
  /// Default: kNotSupported.
  virtual Result<void> reopen();

  /// Sends `batch` and, when some of it may have been answered, takes the power away; then opens
  /// the volume again. Operations that were not answered with success have an error. Default:
  /// kNotSupported.
  virtual Result<void> crash(std::span<Operation> batch);
};

}  // namespace usbd::testing
