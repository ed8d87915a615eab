// SPDX-License-Identifier: Apache-2.0
//
// QuirkyStore: for tests, a store in memory that is wrong in ways in which real servers are: those
// that the probe must notice and the conformance suite must fail on.

#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "objects/memory/memory_store.h"

namespace usbd::objects::testing {

/// What a server may have wrong.
struct Quirks {
  bool ignores_absent = false;
  bool ignores_matches = false;
  /// A put is refused and made.
  bool refuses_and_makes = false;
  /// No tag is ever right, as if it were sent in a form that the server does not take.
  bool matches_nothing = false;
  bool knows_no_conditions = false;
  bool keeps_no_overwrite = false;
  bool ignores_ranges = false;
  bool ignores_tails = false;
  bool same_tag_always = false;
  /// Contents come without their last byte.
  bool loses_a_byte = false;
  /// Listings end after a thousand names and say that there are no more.
  bool lists_one_page = false;
  bool lists_without_order = false;
  bool removal_of_nothing_fails = false;
  bool ignores_most = false;
  bool ignores_limits = false;
  bool lists_nothing = false;
  bool removes_nothing = false;
  Abilities abilities = {.put_if_absent = true, .put_if_matches = true};
};

class QuirkyStore final : public ObjectStore {
 public:
  QuirkyStore(std::shared_ptr<MemoryContainer> container, Quirks quirks)
      : inner_(std::move(container)), quirks_(quirks) {}

  [[nodiscard]] std::string name() const override { return "quirky"; }
  [[nodiscard]] Abilities abilities() const override { return quirks_.abilities; }

  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override {
    const bool absent = condition.kind == Condition::Kind::kAbsent;
    const bool matches = condition.kind == Condition::Kind::kMatches;
    if (quirks_.knows_no_conditions && (absent || matches)) co_return Errc::kNotSupported;
    if (quirks_.matches_nothing && matches) co_return Errc::kExists;
    if (quirks_.ignores_absent && absent) condition = Condition::always();
    if (quirks_.ignores_matches && matches) condition = Condition::always();
    const bool there = inner_.container().objects.contains(name);
    if (quirks_.keeps_no_overwrite && there) co_return std::string("new");
    if (quirks_.refuses_and_makes && absent && there) {
      (void)co_await inner_.put(std::move(name), data, Condition::always(), std::move(limits));
      co_return Errc::kExists;
    }
    Result<std::string> tag =
        co_await inner_.put(std::move(name), data, std::move(condition), std::move(limits));
    if (tag && quirks_.same_tag_always) *tag = "same";
    co_return std::move(tag);
  }
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override {
    if (quirks_.ignores_ranges && part.kind == Part::Kind::kRange) part = Part::whole(100'000);
    if (quirks_.ignores_tails && part.kind == Part::Kind::kTail) part = Part::whole(100'000);
    if (quirks_.ignores_most && part.kind == Part::Kind::kWhole) part = Part::whole(UINT64_MAX);
    if (quirks_.ignores_limits) limits = CallLimits();
    Result<Fetched> got = co_await inner_.get(std::move(name), part, std::move(limits));
    if (got && quirks_.loses_a_byte && !got->data.empty()) got->data.pop_back();
    co_return std::move(got);
  }
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override {
    Result<ObjectInfo> info = co_await inner_.head(std::move(name), std::move(limits));
    if (info && quirks_.same_tag_always) info->tag = "same";
    co_return std::move(info);
  }
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override {
    if (quirks_.lists_nothing) co_return ListPage();
    Result<ListPage> page =
        co_await inner_.list(std::move(prefix), std::move(after), most, std::move(limits));
    if (page && quirks_.lists_one_page) page->more = false;
    if (page && quirks_.lists_without_order) std::ranges::reverse(page->objects);
    co_return std::move(page);
  }
  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    if (quirks_.removes_nothing) co_return Result<void>();
    if (quirks_.removal_of_nothing_fails && !inner_.container().objects.contains(name)) {
      co_return Errc::kNotFound;
    }
    co_return co_await inner_.remove(std::move(name), std::move(limits));
  }
  Task<void> close() override { return inner_.close(); }

 private:
  MemoryStore inner_;
  const Quirks quirks_;
};

}  // namespace usbd::objects::testing
