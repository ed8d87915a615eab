// SPDX-License-Identifier: Apache-2.0
//
// After each attempt that was refused, or whose answer was lost, the head itself is asked.

#include "devices/objstore/head_keeper.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"

namespace usbd::objstore {
namespace {

/// Whether `found` is what `attempted` says, whichever attempt at it took effect.
bool same_but_nonce(Head found, const Head& attempted) {
  found.nonce = attempted.nonce;
  return found == attempted;
}

}  // namespace

void HeadKeeper::draw(Nonce& nonce) {
  rng_.fill(nonce);
}

Task<Result<HeadKeeper::Found>> HeadKeeper::read(objects::CallLimits limits) {
  const objects::Part part = objects::Part::whole(kHeadBytesMax);
  USBD_CO_TRY(objects::Fetched fetched, co_await store_.get(place_.name, part, limits));
  Result<Head> head = decode(fetched.data, place_.key);
  if (!head) {
    co_return Error(head.error().code(), place_.name + ": " + head.error().context());
  }
  co_return Found{.head = *std::move(head), .tag = std::move(fetched.tag)};
}

Task<Result<std::string>> HeadKeeper::put(const Head& head, std::string tag,
                                          objects::CallLimits limits) {
  const std::vector<std::byte> bytes = encode(head, place_.key);
  objects::Condition condition;
  if (place_.fencing) {
    condition =
        tag.empty() ? objects::Condition::absent() : objects::Condition::matches(std::move(tag));
  }
  co_return co_await store_.put(place_.name, bytes, condition, limits);
}

void HeadKeeper::accept(Head head, std::string tag) {
  head_ = std::move(head);
  tag_ = std::move(tag);
  last_contact_ = Loop::current().now();
}

Task<Result<void>> HeadKeeper::create(Head head, objects::CallLimits limits) {
  head.version = 1;
  draw(head.nonce);
  Result<std::string> tag = co_await put(head, std::string(), limits);
  if (tag) co_return Result<void>();
  if (!objects::is_transient(tag.error()) && !tag.error().is(Errc::kExists)) co_return tag.error();
  // It may have been made by this very call.
  const Result<Found> found = co_await read(limits);
  if (found && found->head == head) co_return Result<void>();
  if (found) co_return Error(Errc::kExists, place_.name + " exists by now: somebody else made it");
  co_return tag.error();
}

Task<Result<void>> HeadKeeper::take(const Found& found, Head next, objects::CallLimits limits) {
  USBD_ASSERT(!owned_);
  accept(found.head, found.tag);
  next.version = found.head.version + 1;
  next.epoch = found.head.epoch + 1;
  draw(next.writer);
  for (unsigned attempt = 0;; ++attempt) {
    draw(next.nonce);
    Result<std::string> tag = co_await put(next, tag_, limits);
    if (tag) {
      accept(next, *std::move(tag));
      break;
    }
    const bool unclear = objects::is_transient(tag.error()) || tag.error().is(Errc::kExists);
    if (!unclear) co_return tag.error();
    const Result<Found> now = co_await read(limits);
    if (now && same_but_nonce(now->head, next)) {
      accept(now->head, now->tag);
      break;
    }
    if (now && now->head != found.head) {
      co_return Error(Errc::kBusy,
                      fmt::format("{}: another process opened the volume at this moment; nothing "
                                  "was changed here",
                                  place_.name));
    }
    if (now) tag_ = now->tag;
    if (!now && !objects::is_transient(now.error())) co_return now.error();
    USBD_CO_TRY_VOID(co_await pause(attempt, limits.stop));
  }
  owned_ = true;
  co_return Result<void>();
}

Error HeadKeeper::lost(const Head& found) {
  fenced_ = true;
  return Error(Errc::kPerm,
               fmt::format("{}: the volume was taken over: it is in epoch {} now, this process had "
                           "epoch {}",
                           place_.name, found.epoch, head_.epoch));
}

Error HeadKeeper::set_back(const Head& found) {
  const std::string what = fmt::format(
      "{}: the store shows version {} of it, but has confirmed version {} to this process: it was "
      "set back to an older state. Nothing is published until it shows that one again",
      place_.name, found.version, head_.version);
  if (!std::exchange(set_back_, true)) log::error("{}", what);
  return Error(Errc::kAgain, what);
}

Task<Result<HeadKeeper::Outcome>> HeadKeeper::find_out(const Head& attempted,
                                                       objects::CallLimits limits) {
  USBD_CO_TRY(Found found, co_await read(limits));
  if (place_.fencing && found.head.version < head_.version) co_return set_back(found.head);
  if (found.head.epoch != head_.epoch || found.head.writer != head_.writer) {
    if (place_.fencing) co_return lost(found.head);
  }
  const bool done = same_but_nonce(found.head, attempted);
  accept(std::move(found.head), std::move(found.tag));
  co_return done ? Outcome::kDone : Outcome::kNotDone;
}

Task<Result<void>> HeadKeeper::change(std::function<void(Head&)> change, std::stop_token stop) {
  USBD_ASSERT(owned_);
  const objects::CallLimits limits{.stop = stop};
  for (unsigned attempt = 0;; ++attempt) {
    if (fenced_) co_return Error(Errc::kPerm, place_.name + ": the volume was taken over");
    Head next = head_;
    change(next);
    ++next.version;
    draw(next.nonce);
    Result<std::string> tag = co_await put(next, tag_, limits);
    if (tag) {
      accept(std::move(next), *std::move(tag));
      co_return Result<void>();
    }
    const bool unclear = objects::is_transient(tag.error()) || tag.error().is(Errc::kExists);
    if (!unclear) co_return tag.error();
    Result<Outcome> outcome = co_await find_out(next, limits);
    if (outcome && *outcome == Outcome::kDone) co_return Result<void>();
    if (!outcome && !objects::is_transient(outcome.error())) co_return outcome.error();
    USBD_CO_TRY_VOID(co_await pause(attempt, stop));
  }
}

Task<Result<void>> HeadKeeper::check(objects::CallLimits limits) {
  USBD_ASSERT(owned_);
  if (fenced_) co_return Error(Errc::kPerm, place_.name + ": the volume was taken over");
  const uint64_t version = head_.version;
  USBD_CO_TRY(Found found, co_await read(limits));
  if (place_.fencing && found.head.version < version) co_return set_back(found.head);
  if (found.head.epoch != head_.epoch || found.head.writer != head_.writer) {
    co_return lost(found.head);
  }
  last_contact_ = Loop::current().now();
  co_return Result<void>();
}

Task<Result<void>> HeadKeeper::pause(unsigned attempt, std::stop_token stop) {
  const Nanos longest = std::min<Nanos>(limits::kHeadRetryMax,
                                        limits::kHeadRetryMin * (1U << std::min(attempt, 10U)));
  const Nanos wait(static_cast<int64_t>(rng_.below(static_cast<uint64_t>(longest.count()) + 1)));
  co_await Loop::current().sleep_for(wait, stop);
  if (stop.stop_requested()) co_return Error(Errc::kCanceled, place_.name + ": stopped");
  co_return Result<void>();
}

}  // namespace usbd::objstore
