// SPDX-License-Identifier: Apache-2.0
//
// The calls of a loop, made on threads.

#include "objects/local/local_store.h"

#include <algorithm>
#include <span>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::objects {

Task<Result<std::unique_ptr<LocalStore>>> LocalStore::open(Options options, WorkerPool& pool,
                                                           Rng& rng) {
  const LocalContainer::Options where{.path = std::move(options.path),
                                      .name = std::move(options.container),
                                      .create = options.create,
                                      .read_only = options.read_only,
                                      .calls = options.calls};
  auto opening = [&] { return LocalContainer::open(where); };
  USBD_CO_TRY(std::unique_ptr<LocalContainer> container, co_await pool.run(opening));
  co_return std::unique_ptr<LocalStore>(
      new LocalStore(std::move(container), options.read_only, pool, rng));
}

Result<void> LocalStore::may_begin(const std::string& name, bool changes,
                                   const CallClock& clock) const {
  if (const std::optional<Errc> over = clock.over()) {
    return container_->refused(*over, name, "the call ended before anything was done");
  }
  if (changes && read_only_) {
    return container_->refused(Errc::kReadOnly, name, "the store was opened only for reading");
  }
  return {};
}

template <typename Change>
Task<Result<void>> LocalStore::when_unlocked(Change& change, const std::string& name,
                                             const CallClock& clock) {
  Loop& loop = Loop::current();
  Nanos pause_max = limits::kStoreLockRetryMin;
  for (;;) {
    const Result<bool> changed = co_await pool_.run(change);
    if (!changed) co_return changed.error();
    if (*changed) co_return Result<void>();
    if (const std::optional<Errc> over = clock.over()) {
      co_return container_->refused(*over, name,
                                    "another process has held .usbd/lock all the time");
    }
    const uint64_t drawn = rng_.between(1, static_cast<uint64_t>(pause_max.count()));
    co_await loop.sleep_for(std::min(Nanos(static_cast<int64_t>(drawn)), clock.left()),
                            clock.stop());
    pause_max = std::min<Nanos>(2 * pause_max, limits::kStoreLockRetryMax);
  }
}

Task<Result<std::string>> LocalStore::put(std::string name, Bytes data, Condition condition,
                                          CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  const CallClock clock(Loop::current(), std::move(limits), limits::kLocalStoreTimeout);
  USBD_CO_TRY_VOID(may_begin(name, true, clock));
  PutNonce nonce;
  rng_.fill(nonce);
  StagedPut staged;
  auto stage = [&] { return container_->stage(staged, name, data, nonce, clock); };
  USBD_CO_TRY_VOID(co_await pool_.run(stage));
  auto place = [&] { return container_->place(staged, name, condition); };
  Result<void> placed;
  if (const std::optional<Errc> over = clock.over()) {
    placed = container_->refused(*over, name, "the put ended before it took effect");
  } else {
    placed = co_await when_unlocked(place, name, clock);
  }
  if (placed) co_return tag_of(nonce);
  auto discard = [&] {
    LocalContainer::discard(staged);
    return true;
  };
  co_await pool_.run(discard);
  co_return placed.error();
}

Task<Result<Fetched>> LocalStore::get(std::string name, Part part, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  const CallClock clock(Loop::current(), std::move(limits), limits::kLocalStoreTimeout);
  USBD_CO_TRY_VOID(may_begin(name, false, clock));
  auto get = [&] { return container_->get(name, part, clock); };
  co_return co_await pool_.run(get);
}

Task<Result<ObjectInfo>> LocalStore::head(std::string name, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  const CallClock clock(Loop::current(), std::move(limits), limits::kLocalStoreTimeout);
  USBD_CO_TRY_VOID(may_begin(name, false, clock));
  auto head = [&] { return container_->head(name); };
  co_return co_await pool_.run(head);
}

Task<Result<void>> LocalStore::remove(std::string name, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  const CallClock clock(Loop::current(), std::move(limits), limits::kLocalStoreTimeout);
  USBD_CO_TRY_VOID(may_begin(name, true, clock));
  auto remove = [&] { return container_->remove(name); };
  co_return co_await when_unlocked(remove, name, clock);
}

Task<Result<LocalStore::Window>> LocalStore::window_for(const std::string& prefix,
                                                        const std::string& after,
                                                        const CallClock& clock) {
  const Nanos now = Loop::current().now();
  if (window_ && !after.empty() && window_->prefix == prefix && window_->after == after &&
      now - window_->made < limits::kListWindowAge) {
    Window known = *std::exchange(window_, std::nullopt);
    if (known.next < known.run.names.size()) co_return std::move(known);
  }
  auto walk = [&] { return container_->names(prefix, after, limits::kListWindow, clock); };
  USBD_CO_TRY(NameRun run, co_await pool_.run(walk));
  Window window{.prefix = prefix, .after = after, .made = now, .run = std::move(run)};
  co_return std::move(window);
}

Task<Result<ListPage>> LocalStore::list(std::string prefix, std::string after, size_t most,
                                        CallLimits limits) {
  USBD_ASSERT(most > 0 && most <= kListPageMax);
  const CallClock clock(Loop::current(), std::move(limits), limits::kLocalStoreTimeout);
  ListPage page;
  do {
    USBD_CO_TRY_VOID(may_begin(prefix, false, clock));
    USBD_CO_TRY(Window window, co_await window_for(prefix, after, clock));
    const size_t left = window.run.names.size() - window.next;
    const auto names = std::span(window.run.names).subspan(window.next, std::min(most, left));
    auto describe = [&] { return container_->describe(names); };
    USBD_CO_TRY(page.objects, co_await pool_.run(describe));
    page.more = names.size() < left || window.run.more;
    if (!names.empty()) after = names.back();
    window.next += names.size();
    window.after = after;
    if (page.more) window_ = std::move(window);
    // Nobody could ask for what comes after a page without names.
  } while (page.objects.empty() && page.more);
  co_return std::move(page);
}

Task<void> LocalStore::close() {
  window_.reset();
  co_await Loop::current().schedule();
}

}  // namespace usbd::objects
