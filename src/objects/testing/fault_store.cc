// SPDX-License-Identifier: Apache-2.0
//
// Faults around each call.

#include "objects/testing/fault_store.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace usbd::objects::testing {
namespace {

using Kind = StoreFault::Kind;

bool is(const std::optional<StoreFault>& fault, Kind kind) {
  return fault.has_value() && fault->kind == kind;
}

Error injected(const StoreFault& fault, const std::string& name) {
  return Error(fault.error,
               fmt::format("fault store: {} of {} was made to fail", store_call_name(fault.call),
                           name.empty() ? "everything" : name));
}

}  // namespace

std::optional<StoreFault> FaultStore::meet(StoreCall call) {
  ++calls_[static_cast<size_t>(call)];
  std::optional<StoreFault> met;
  for (StoreFault& fault : faults_) {
    if (fault.call != call || fault.count == 0) continue;
    if (fault.after > 0) {
      --fault.after;
    } else if (!met) {
      --fault.count;
      met = fault;
    }
  }
  std::erase_if(faults_, [](const StoreFault& fault) { return fault.count == 0; });
  if (!met) met = draw(call);
  if (!met) return met;
  ++happened_;
  const bool changes = call == StoreCall::kPut || call == StoreCall::kRemove;
  if (met->kind == Kind::kLate && !changes) met->kind = Kind::kBefore;
  return met;
}

std::optional<StoreFault> FaultStore::draw(StoreCall call) {
  static constexpr Errc kErrors[] = {Errc::kIo, Errc::kAgain, Errc::kTimedOut};
  const Chances& chances = options_.chances;
  const std::pair<uint64_t, Kind> all[] = {
      {chances.before, Kind::kBefore},     {chances.after, Kind::kAfter},
      {chances.late, Kind::kLate},         {chances.delay, Kind::kDelay},
      {chances.truncate, Kind::kTruncate}, {chances.wrong_tag, Kind::kWrongTag}};
  for (const auto& [chance, kind] : all) {
    if (chance == 0 || !rng_.one_in(chance)) continue;
    const uint64_t delay = rng_.below(static_cast<uint64_t>(options_.delay_max.count()) + 1);
    return StoreFault{.call = call,
                      .kind = kind,
                      .error = kErrors[rng_.below(std::size(kErrors))],
                      .delay = Nanos(static_cast<int64_t>(delay))};
  }
  return std::nullopt;
}

Task<Result<void>> FaultStore::wait(StoreFault fault, std::string name, const CallLimits& limits) {
  Loop& loop = Loop::current();
  const CallClock clock(loop, limits, limits::kStoreCallTime);
  co_await loop.sleep_for(std::min(fault.delay, clock.left()), clock.stop());
  if (const std::optional<Errc> over = clock.over()) {
    fault.error = *over;
    co_return injected(fault, name);
  }
  co_return Result<void>();
}

Task<Result<std::string>> FaultStore::put(std::string name, Bytes data, Condition condition,
                                          CallLimits limits) {
  const std::optional<StoreFault> fault = meet(StoreCall::kPut);
  if (is(fault, Kind::kDelay)) USBD_CO_TRY_VOID(co_await wait(*fault, name, limits));
  if (is(fault, Kind::kLate)) {
    late_.spawn(put_late(name, {data.begin(), data.end()}, std::move(condition), fault->delay));
    co_return injected(*fault, name);
  }
  if (is(fault, Kind::kBefore)) co_return injected(*fault, name);
  Result<std::string> result =
      co_await inner_->put(name, data, std::move(condition), std::move(limits));
  if (is(fault, Kind::kAfter)) co_return injected(*fault, name);
  if (is(fault, Kind::kWrongTag) && result) *result += "-wrong";
  co_return std::move(result);
}

Task<void> FaultStore::put_late(std::string name, std::vector<std::byte> data, Condition condition,
                                Nanos delay) {
  co_await Loop::current().sleep_for(delay);
  CallLimits limits;
  // Nobody is left to be told whether it succeeded.
  (void)co_await inner_->put(std::move(name), data, std::move(condition), std::move(limits));
}

Task<Result<Fetched>> FaultStore::get(std::string name, Part part, CallLimits limits) {
  const std::optional<StoreFault> fault = meet(StoreCall::kGet);
  if (is(fault, Kind::kDelay)) USBD_CO_TRY_VOID(co_await wait(*fault, name, limits));
  if (is(fault, Kind::kBefore)) co_return injected(*fault, name);
  Result<Fetched> result = co_await inner_->get(name, part, std::move(limits));
  if (is(fault, Kind::kAfter)) co_return injected(*fault, name);
  if (is(fault, Kind::kWrongTag) && result) result->tag += "-wrong";
  if (is(fault, Kind::kTruncate) && result && !result->data.empty()) {
    result->data.resize(rng_.below(result->data.size()));
  }
  co_return std::move(result);
}

Task<Result<ObjectInfo>> FaultStore::head(std::string name, CallLimits limits) {
  const std::optional<StoreFault> fault = meet(StoreCall::kHead);
  if (is(fault, Kind::kDelay)) USBD_CO_TRY_VOID(co_await wait(*fault, name, limits));
  if (is(fault, Kind::kBefore)) co_return injected(*fault, name);
  Result<ObjectInfo> result = co_await inner_->head(name, std::move(limits));
  if (is(fault, Kind::kAfter)) co_return injected(*fault, name);
  if (is(fault, Kind::kWrongTag) && result) result->tag += "-wrong";
  co_return std::move(result);
}

Task<Result<ListPage>> FaultStore::list(std::string prefix, std::string after, size_t most,
                                        CallLimits limits) {
  const std::optional<StoreFault> fault = meet(StoreCall::kList);
  if (is(fault, Kind::kDelay)) USBD_CO_TRY_VOID(co_await wait(*fault, prefix, limits));
  if (is(fault, Kind::kBefore)) co_return injected(*fault, prefix);
  Result<ListPage> result =
      co_await inner_->list(prefix, std::move(after), most, std::move(limits));
  if (is(fault, Kind::kAfter)) co_return injected(*fault, prefix);
  co_return std::move(result);
}

Task<Result<void>> FaultStore::remove(std::string name, CallLimits limits) {
  const std::optional<StoreFault> fault = meet(StoreCall::kRemove);
  if (is(fault, Kind::kDelay)) USBD_CO_TRY_VOID(co_await wait(*fault, name, limits));
  if (is(fault, Kind::kLate)) {
    late_.spawn(remove_late(name, fault->delay));
    co_return injected(*fault, name);
  }
  if (is(fault, Kind::kBefore)) co_return injected(*fault, name);
  Result<void> result = co_await inner_->remove(name, std::move(limits));
  if (is(fault, Kind::kAfter)) co_return injected(*fault, name);
  co_return std::move(result);
}

Task<void> FaultStore::remove_late(std::string name, Nanos delay) {
  co_await Loop::current().sleep_for(delay);
  CallLimits limits;
  (void)co_await inner_->remove(std::move(name), std::move(limits));
}

Task<void> FaultStore::close() {
  co_await late_.close();
  co_await inner_->close();
}

}  // namespace usbd::objects::testing
