// SPDX-License-Identifier: Apache-2.0
//
// Each call decides at its start what will become of it.

#include "sim/sim_store.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace usbd::sim {

using objects::CallLimits;
using objects::Condition;
using objects::Fetched;
using objects::ListPage;
using objects::ObjectInfo;
using objects::Part;

/// The store as one process sees it.
class SimStoreClient final : public objects::ObjectStore {
 public:
  SimStoreClient(SimStore& store, uint64_t life) : store_(store), life_(life) {}

  [[nodiscard]] std::string name() const override { return "sim"; }
  [[nodiscard]] objects::Abilities abilities() const override {
    return {.put_if_absent = true, .put_if_matches = true};
  }

  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override {
    std::vector<std::byte> copy(data.begin(), data.end());
    USBD_CO_TRY(const SimStore::Fate fate, co_await begin(StoreOp::kPut, name, true, limits));
    if (fate == SimStore::Fate::kFailsBefore) co_return store_.draw_error(name);
    if (fate == SimStore::Fate::kComesLate) {
      store_.loop_.spawn(store_.put_late(name, std::move(copy), std::move(condition)));
      co_return store_.draw_error(name);
    }
    Result<std::string> tag = store_.put_now(name, std::move(copy), condition);
    USBD_CO_TRY_VOID(co_await end(StoreOp::kPut, name, limits));
    if (fate == SimStore::Fate::kFailsAfter) co_return store_.draw_error(name);
    co_return tag;
  }

  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override {
    USBD_CO_TRY(const SimStore::Fate fate, co_await begin(StoreOp::kGet, name, false, limits));
    if (fate == SimStore::Fate::kFailsBefore) co_return store_.draw_error(name);
    const auto found = store_.objects_.find(name);
    if (found == store_.objects_.end()) co_return Error(Errc::kNotFound, name);
    const std::vector<std::byte>& all = found->second.data;
    uint64_t offset = part.offset;
    if (part.kind == Part::Kind::kTail) offset = all.size() - std::min(part.length, all.size());
    if (part.kind == Part::Kind::kWhole && all.size() > part.length) co_return Errc::kOverflow;
    offset = std::min<uint64_t>(offset, all.size());
    const uint64_t length = std::min<uint64_t>(part.length, all.size() - offset);
    const Bytes taken = Bytes(all).subspan(offset, length);
    Fetched fetched{
        .data = {taken.begin(), taken.end()}, .object_size = all.size(), .tag = found->second.tag};
    USBD_CO_TRY_VOID(co_await end(StoreOp::kGet, name, limits));
    // A body that was cut short is found out by the transport.
    if (fate != SimStore::Fate::kWell) co_return store_.draw_error(name);
    co_return fetched;
  }

  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override {
    USBD_CO_TRY(const SimStore::Fate fate, co_await begin(StoreOp::kHead, name, false, limits));
    if (fate != SimStore::Fate::kWell) co_return store_.draw_error(name);
    const auto found = store_.objects_.find(name);
    if (found == store_.objects_.end()) co_return Error(Errc::kNotFound, name);
    co_return ObjectInfo{.name = name, .size = found->second.data.size(), .tag = found->second.tag};
  }

  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override {
    USBD_CO_TRY(const SimStore::Fate fate, co_await begin(StoreOp::kList, prefix, false, limits));
    if (fate != SimStore::Fate::kWell) co_return store_.draw_error(prefix);
    ListPage page;
    for (auto at = store_.objects_.upper_bound(std::max(prefix, after));
         at != store_.objects_.end() && at->first.starts_with(prefix); ++at) {
      if (page.objects.size() == most) {
        page.more = true;
        break;
      }
      page.objects.push_back(
          {.name = at->first, .size = at->second.data.size(), .tag = at->second.tag});
    }
    co_return page;
  }

  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    USBD_CO_TRY(const SimStore::Fate fate, co_await begin(StoreOp::kRemove, name, true, limits));
    if (fate == SimStore::Fate::kFailsBefore) co_return store_.draw_error(name);
    if (fate == SimStore::Fate::kComesLate) {
      store_.loop_.spawn(store_.remove_late(name));
      co_return store_.draw_error(name);
    }
    store_.objects_.erase(name);
    USBD_CO_TRY_VOID(co_await end(StoreOp::kRemove, name, limits));
    if (fate == SimStore::Fate::kFailsAfter) co_return store_.draw_error(name);
    co_return Result<void>();
  }

  Task<void> close() override { co_return; }

 private:
  [[nodiscard]] Error dead() const { return Error(Errc::kCanceled, "this process is dead"); }

  Task<Result<SimStore::Fate>> begin(StoreOp op, std::string name, bool changes,
                                     CallLimits limits) {
    store_.tell(life_, {.op = op, .name = name, .ended = false});
    if (store_.is_dead(life_)) co_return dead();
    const SimStore::Fate fate = store_.draw_fate(changes);
    const Nanos wait = store_.draw_latency();
    co_await store_.loop_.sleep_for(wait, limits.stop);
    if (store_.is_dead(life_)) {
      // It is on its way, or it is not.
      const bool chance = store_.options_.of_the_dead == OfTheDead::kChance;
      const bool lands =
          chance ? store_.rng_.one_in(2) : store_.options_.of_the_dead == OfTheDead::kLands;
      if (!lands) co_return dead();
      co_return changes ? SimStore::Fate::kComesLate : SimStore::Fate::kFailsBefore;
    }
    if (limits.stop.stop_requested()) co_return Error(Errc::kCanceled, name);
    co_return fate;
  }

  Task<Result<void>> end(StoreOp op, std::string name, CallLimits limits) {
    const Nanos wait = store_.draw_latency();
    co_await store_.loop_.sleep_for(wait, limits.stop);
    store_.tell(life_, {.op = op, .name = name, .ended = true});
    if (store_.is_dead(life_)) co_return dead();
    if (limits.stop.stop_requested()) co_return Error(Errc::kCanceled, name);
    co_return Result<void>();
  }

  SimStore& store_;
  const uint64_t life_;
};

std::unique_ptr<objects::ObjectStore> SimStore::attach() {
  return std::make_unique<SimStoreClient>(*this, ++lives_);
}

Nanos SimStore::between(Nanos from, Nanos to) {
  return Nanos(static_cast<int64_t>(
      rng_.between(static_cast<uint64_t>(from.count()), static_cast<uint64_t>(to.count()))));
}

Nanos SimStore::draw_latency() {
  if (options_.slow_one_in > 0 && rng_.one_in(options_.slow_one_in)) {
    ++slow_calls_;
    return between(options_.latency_max, options_.slow_max);
  }
  return between(options_.latency_min, options_.latency_max);
}

SimStore::Fate SimStore::draw_fate(bool changes) {
  if (loop_.now() < away_until_) {
    ++faults_;
    return Fate::kFailsBefore;
  }
  if (options_.fault_one_in == 0 || !rng_.one_in(options_.fault_one_in)) return Fate::kWell;
  ++faults_;
  constexpr Fate kFates[] = {Fate::kFailsBefore, Fate::kFailsAfter, Fate::kComesLate};
  const Fate fate = kFates[rng_.below(changes ? 3 : 2)];
  if (changes && fate != Fate::kFailsBefore) ++ambiguous_;
  return fate;
}

Error SimStore::draw_error(const std::string& name) {
  constexpr Errc kErrors[] = {Errc::kTimedOut, Errc::kAgain, Errc::kIo};
  return Error(kErrors[rng_.below(3)], name + ": injected");
}

Result<std::string> SimStore::put_now(const std::string& name, std::vector<std::byte> data,
                                      const Condition& condition) {
  const auto found = objects_.find(name);
  const bool exists = found != objects_.end();
  if (condition.kind == Condition::Kind::kAbsent && exists) return Error(Errc::kExists, name);
  if (condition.kind == Condition::Kind::kMatches &&
      (!exists || found->second.tag != condition.tag)) {
    return Error(Errc::kExists, name);
  }
  Object& object = objects_[name];
  object.data = std::move(data);
  object.tag = fmt::format("t{}", ++tags_);
  return object.tag;
}

Task<void> SimStore::put_late(std::string name, std::vector<std::byte> data, Condition condition) {
  const Nanos wait = between(Nanos(0), options_.late_max);
  co_await loop_.sleep_for(wait);
  static_cast<void>(put_now(name, std::move(data), condition));  // nobody waits for the answer
}

Task<void> SimStore::remove_late(std::string name) {
  const Nanos wait = between(Nanos(0), options_.late_max);
  co_await loop_.sleep_for(wait);
  objects_.erase(name);
}

}  // namespace usbd::sim
