// SPDX-License-Identifier: Apache-2.0
//
// The rules for refusals, and requests that break each of them.

#include "conformance/refusals.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/core.h>

namespace usbd::testing {
namespace {

bool has_payload(OpKind kind) {
  return kind == OpKind::kRead || kind == OpKind::kWrite;
}

bool is_beyond_end(const SubjectTraits& traits, const Operation& op) {
  return op.offset > traits.size || op.length > traits.size - op.offset;
}

/// The errors that the request may be refused with; none if it must succeed.
std::vector<int> errors_due(const SubjectTraits& traits, const Operation& op) {
  std::vector<int> errors;
  if (op.kind == OpKind::kFlush) return errors;
  if (is_change(op.kind) && traits.read_only) errors.push_back(EPERM);
  if (!is_change(op.kind) ? !may_do(traits, op.kind)
                          : (op.kind == OpKind::kTrim && !traits.can_trim) ||
                                (op.kind == OpKind::kWriteZeroes && !traits.can_write_zeroes)) {
    errors.push_back(EOPNOTSUPP);
    errors.push_back(EINVAL);
  }
  const bool unaligned = ((op.offset | op.length) & (traits.block_size - 1)) != 0;
  if (op.length == 0 || unaligned) errors.push_back(EINVAL);
  if (has_payload(op.kind) && op.length > traits.payload_max) {
    errors.push_back(EINVAL);
    errors.push_back(EOVERFLOW);
  }
  if (is_beyond_end(traits, op)) {
    const bool needs_space = op.kind == OpKind::kWrite || op.kind == OpKind::kWriteZeroes;
    errors.push_back(needs_space ? ENOSPC : EINVAL);
  }
  return errors;
}

std::string error_name(int error) {
  return fmt::format("{} ({})", error, std::generic_category().message(error));
}

class RefusalList {
 public:
  explicit RefusalList(const SubjectTraits& traits) : traits_(traits) {}

  std::vector<Operation> make() {
    for (const OpKind kind : {OpKind::kRead, OpKind::kWrite, OpKind::kTrim, OpKind::kWriteZeroes,
                              OpKind::kCache, OpKind::kExtents}) {
      if (is_change(kind) && traits_.read_only) {
        add(kind, 0, traits_.block_size);
      } else if (may_do(traits_, kind)) {
        add_beyond_end(kind);
        add_misshapen(kind);
      }
    }
    return std::move(list_);
  }

 private:
  void add(OpKind kind, uint64_t offset, uint64_t length) {
    Operation op;
    op.kind = kind;
    op.offset = offset;
    op.length = length;
    list_.push_back(std::move(op));
  }
  void add_beyond_end(OpKind kind) {
    const uint64_t unit = std::max<uint64_t>(traits_.block_size, 512);
    const uint64_t block = traits_.block_size;
    add(kind, traits_.size, block);
    add(kind, traits_.size + unit * 1'000, unit);
    add(kind, uint64_t{1} << 62U, unit);
    add(kind, uint64_t{1} << 63U, unit);
    add(kind, 0 - unit, unit);      // offset + length is 0
    add(kind, 0 - unit, unit * 2);  // offset + length is a valid place
    if (is_change(kind) && !traits_.refuses_across_end) return;
    add(kind, traits_.size - block, block * 2);
    add(kind, traits_.size - block, unit * 100);
    if (traits_.size < traits_.payload_max) add(kind, 0, traits_.size + block);
  }
  void add_misshapen(OpKind kind) {
    const uint64_t block = traits_.block_size;
    if (traits_.refuses_empty) {
      add(kind, 0, 0);
      add(kind, traits_.size, 0);
    }
    if (block > 1) {
      add(kind, 1, block);
      add(kind, 0, block - 1);
      add(kind, block / 2, block);
      add(kind, 0, block + 1);
    }
    if (has_payload(kind) && traits_.refuses_oversized) {
      add(kind, 0, uint64_t{traits_.payload_max} + block);
    }
  }

  const SubjectTraits& traits_;
  std::vector<Operation> list_;
};

}  // namespace

bool is_change(OpKind kind) {
  return kind == OpKind::kWrite || kind == OpKind::kTrim || kind == OpKind::kWriteZeroes;
}

bool may_do(const SubjectTraits& traits, OpKind kind) {
  switch (kind) {
    case OpKind::kRead:
      return true;
    case OpKind::kWrite:
      return !traits.read_only;
    case OpKind::kTrim:
      return !traits.read_only && traits.can_trim;
    case OpKind::kWriteZeroes:
      return !traits.read_only && traits.can_write_zeroes;
    case OpKind::kFlush:
      return traits.can_flush;
    case OpKind::kCache:
      return traits.can_cache;
    case OpKind::kExtents:
      return traits.can_extents;
  }
  return false;
}

std::optional<std::string> judge_answer(const SubjectTraits& traits, const Operation& op) {
  const std::vector<int> due = errors_due(traits, op);
  if (due.empty()) {
    if (op.error == 0 || (op.fast_only && op.error == EOPNOTSUPP)) return std::nullopt;
    if (traits.may_fail && (op.error == EIO || op.error == ENOSPC)) return std::nullopt;
    return fmt::format("a valid request failed with error {}", error_name(op.error));
  }
  if (op.error == 0) {
    return fmt::format("a request that must be refused (error {}) succeeded",
                       error_name(due.front()));
  }
  if (!traits.exact_errors || std::ranges::find(due, op.error) != due.end()) return std::nullopt;
  return fmt::format("a request was refused with error {}, which should be {}",
                     error_name(op.error), error_name(due.front()));
}

std::vector<Operation> refused_operations(const SubjectTraits& traits) {
  return RefusalList(traits).make();
}

void give_payload(Operation& op, std::byte byte) {
  if (has_payload(op.kind)) op.data.assign(op.length, byte);
}

std::string describe(const Operation& op) {
  std::string text = op_kind_name(op.kind);
  if (op.kind != OpKind::kFlush) text += fmt::format(" {} bytes at {}", op.length, op.offset);
  if (op.fua) text += " (fua)";
  if (op.no_hole) text += " (no_hole)";
  if (op.fast_only) text += " (fast_only)";
  text += fmt::format(" on connection {}", op.connection);
  if (op.error != 0) text += fmt::format(", answered {}", error_name(op.error));
  return text;
}

}  // namespace usbd::testing
