// SPDX-License-Identifier: Apache-2.0
//
// Waiting is the loop's: in simulations the delays take no real time.

#include "layers/delay_layer.h"

namespace usbd {

Result<DelayLayer::Rules> DelayLayer::parse(const LayerSpec& spec) {
  std::vector<std::string> known = layer_op_names();
  for (const char* key : {"all", "after", "for"}) known.emplace_back(key);
  USBD_TRY_VOID(spec.check_keys(known));
  Rules rules;
  bool stalls = false;
  const auto take = [&](const std::string& key, size_t first, size_t end) -> Result<void> {
    const bool stall = spec.text(key) == "stall";
    std::optional<Nanos> delay;
    if (!stall) {
      USBD_TRY(delay, spec.duration(key));
    }
    for (size_t op = first; op < end; ++op) {
      if (delay || stall) rules.delays[op] = delay.value_or(Nanos(0));
      if (delay || stall) rules.stalls[op] = stall;
    }
    stalls = stalls || stall;
    return {};
  };
  USBD_TRY_VOID(take("all", 0, kOps));
  for (size_t op = 0; op < kOps; ++op) USBD_TRY_VOID(take(layer_op_names()[op], op, op + 1));
  USBD_TRY(const std::optional<Nanos> after, spec.duration("after"));
  USBD_TRY(const std::optional<Nanos> lasting, spec.duration("for"));
  rules.after = after.value_or(Nanos(0));
  rules.lasting = lasting.value_or(Nanos::max());
  if (stalls && !lasting) {
    return Error(Errc::kInvalid, "layer delay: stall needs for=DURATION, the time it lasts");
  }
  return rules;
}

Nanos DelayLayer::wait_of(Op op, Nanos now) {
  int64_t start = kNotStarted;
  if (start_ns_.compare_exchange_strong(start, now.count())) start = now.count();
  const Nanos since_start = now - Nanos(start);
  if (since_start < rules_.after) return Nanos(0);
  const Nanos in_window = since_start - rules_.after;
  if (in_window >= rules_.lasting) return Nanos(0);
  const auto index = static_cast<size_t>(op);
  return rules_.stalls[index] ? rules_.lasting - in_window : rules_.delays[index];
}

Task<Result<void>> DelayLayer::admit(Op op, ByteRange /*range*/) {
  Loop& loop = Loop::current();
  const Nanos wait = wait_of(op, loop.now());
  if (wait > Nanos(0)) co_await loop.sleep_for(wait);
  co_return Result<void>();
}

}  // namespace usbd
