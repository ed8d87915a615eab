// SPDX-License-Identifier: Apache-2.0
//
// One draw per chosen request, so that the same sequence of requests fails in the same places.

#include "layers/fault_layer.h"

#include <array>
#include <cmath>

#include <fmt/format.h>

namespace usbd {
namespace {

struct NamedError {
  const char* name;
  int number;
};
/// What NBD and the kernel drivers can tell their clients.
constexpr std::array<NamedError, 8> kErrors{{{"EIO", EIO},
                                             {"ENOSPC", ENOSPC},
                                             {"ENOMEM", ENOMEM},
                                             {"EINVAL", EINVAL},
                                             {"EPERM", EPERM},
                                             {"EOVERFLOW", EOVERFLOW},
                                             {"ENOTSUP", EOPNOTSUPP},
                                             {"ESHUTDOWN", ESHUTDOWN}}};

Result<int> parse_error(const LayerSpec& spec, const std::string& name) {
  std::string allowed;
  for (const NamedError& error : kErrors) {
    if (name == error.name) return error.number;
    allowed += allowed.empty() ? "one of " : ", ";
    allowed += error.name;
  }
  return spec.bad_value("error", allowed);
}

}  // namespace

Result<FaultLayer::Rules> FaultLayer::parse(const LayerSpec& spec) {
  USBD_TRY_VOID(spec.check_keys({"op", "error", "rate", "after", "count", "range", "seed"}));
  Rules rules;
  USBD_TRY(const std::optional<std::vector<bool>> ops, spec.ops("op"));
  USBD_TRY(const std::optional<double> rate, spec.share("rate"));
  USBD_TRY(const std::optional<uint64_t> after, spec.number("after"));
  USBD_TRY(const std::optional<uint64_t> count, spec.number("count"));
  USBD_TRY(const std::optional<uint64_t> seed, spec.number("seed"));
  USBD_TRY(rules.range, spec.range("range"));
  USBD_TRY(rules.error, parse_error(spec, spec.text("error").value_or("EIO")));
  rules.ops = ops.value_or(rules.ops);
  rules.rate = rate.value_or(rules.rate);
  rules.after = after.value_or(rules.after);
  rules.count = count.value_or(rules.count);
  rules.seed = seed.value_or(rules.seed);
  return rules;
}

bool FaultLayer::strikes(Op op, ByteRange range) {
  if (!rules_.ops[static_cast<size_t>(op)]) return false;
  if (rules_.range && !rules_.range->overlaps(range)) return false;
  const MutexLock lock(mutex_);
  constexpr double kUnit = 0x1p-53;  // the finest step of a double below 1
  const double drawn = static_cast<double>(rng_.next() >> 11U) * kUnit;
  if (++chosen_ <= rules_.after || injected_ >= rules_.count || drawn >= rules_.rate) return false;
  ++injected_;
  return true;
}

Task<Result<void>> FaultLayer::admit(Op op, ByteRange range) {
  if (!strikes(op, range)) co_return Result<void>();
  co_return Error::from_errno(rules_.error,
                              fmt::format("{} failed by the fault layer", op_name(op)));
}

}  // namespace usbd
