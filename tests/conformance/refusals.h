// SPDX-License-Identifier: Apache-2.0
//
// Which answers a request may get, as the contracts say: a valid one succeeds; one that is beyond
// the end, unaligned, empty, too long or not allowed is refused with a certain error and has no
// effect.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "usbd/testing/subject.h"

namespace usbd::testing {

/// Whether the subject may carry the operation out, given its traits.
[[nodiscard]] bool may_do(const SubjectTraits& traits, OpKind kind);
/// Whether the operation changes data: a write, trim or zeroing.
[[nodiscard]] bool is_change(OpKind kind);

/// What is wrong with the answer stored in `op`; empty: nothing.
[[nodiscard]] std::optional<std::string> judge_answer(const SubjectTraits& traits,
                                                      const Operation& op);

/// Requests that must be refused, one of each sort that the subject lets be sent. Their `data` is
/// still empty: see give_payload().
[[nodiscard]] std::vector<Operation> refused_operations(const SubjectTraits& traits);

/// Makes `data` as long as the operation needs it, filled with `byte`.
void give_payload(Operation& op, std::byte byte);

/// "write 4096 bytes at 8192 (fua) on connection 1".
[[nodiscard]] std::string describe(const Operation& op);

}  // namespace usbd::testing
