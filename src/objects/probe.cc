// SPDX-License-Identifier: Apache-2.0
//
// Trying a store out.

#include "objects/probe.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/limits.h"

namespace usbd::objects {
namespace {

/// Of a scratch object; no multiple of anything. Units: bytes.
constexpr size_t kScratchBytes = 1003;
/// Objects listed before the listing counts as one that does not know ours.
constexpr size_t kPagesMax = 4;

/// Whether an error is the store's answer to what was tried, rather than a failure to try it.
bool is_answer(const Error& error) {
  return error.is(Errc::kExists) || error.is(Errc::kNotFound) || error.is(Errc::kNotSupported) ||
         error.is(Errc::kInvalid) || error.is(Errc::kOverflow);
}

/// The end of a step. Not inlined: in long coroutines g++ 12 warns that the empty result, made in
/// place, might be uninitialised.
[[gnu::noinline]] Result<void> all_tried() {
  return {};
}

class Prober {
 public:
  Prober(ObjectStore& store, std::string prefix, Rng& rng, CallLimits limits)
      : store_(store), limits_(std::move(limits)) {
    stem_ = fmt::format("{}probe-{:016x}", prefix, rng.next());
    first_ = stem_ + "-1";
    second_ = stem_ + "-2";
    for (std::vector<std::byte>* contents : {&old_, &new_, &other_}) {
      contents->resize(kScratchBytes);
      rng.fill(*contents);
    }
  }

  Task<Result<void>> run() {
    USBD_CO_TRY_VOID(co_await try_puts());
    USBD_CO_TRY_VOID(co_await try_parts());
    USBD_CO_TRY_VOID(co_await try_matches());
    USBD_CO_TRY_VOID(co_await try_absent());
    USBD_CO_TRY_VOID(co_await try_list());
    co_return co_await try_remove();
  }

  /// Removes what is left. Says nothing: run() has the reason if the store is out of reach.
  Task<void> clean_up() {
    const std::array<std::string, 2> names = {first_, second_};
    for (const std::string& name : names) {
      CallLimits limits{.timeout = limits::kLocalStoreTimeout, .stop = {}};
      (void)co_await store_.remove(name, std::move(limits));
    }
  }

  ProbeReport report;

 private:
  Task<Result<std::string>> put(const std::string& name, const std::vector<std::byte>& data,
                                Condition condition) {
    CallLimits limits = limits_;
    co_return co_await store_.put(name, data, std::move(condition), std::move(limits));
  }
  Task<Result<Fetched>> get(const std::string& name, Part part) {
    CallLimits limits = limits_;
    co_return co_await store_.get(name, part, std::move(limits));
  }
  /// Whether the first object holds `data`. Errors: those that are no answer.
  Task<Result<bool>> holds(const std::vector<std::byte>& data) {
    const Result<Fetched> got = co_await get(first_, Part::whole(kScratchBytes));
    if (!got && !is_answer(got.error())) co_return got.error();
    co_return got.has_value() && got->data == data;
  }
  bool find(std::string tried, bool works, std::string seen) {
    report.findings.push_back({.tried = std::move(tried), .works = works, .seen = std::move(seen)});
    return works;
  }

  Task<Result<void>> try_puts() {
    USBD_CO_TRY(stale_tag_, co_await put(first_, old_, Condition::always()));
    USBD_CO_TRY(const bool sees_first, co_await holds(old_));
    USBD_CO_TRY(tag_, co_await put(first_, new_, Condition::always()));
    USBD_CO_TRY(const bool sees_second, co_await holds(new_));
    report.sees_own_puts =
        find("a get after a put, and after an overwrite", sees_first && sees_second,
             !sees_first    ? "did not give what had been put"
             : !sees_second ? "did not give what had been put in place of the first"
                            : "gave what had been put");
    co_return co_await try_tags();
  }
  Task<Result<void>> try_tags() {
    CallLimits limits = limits_;
    const Result<ObjectInfo> info = co_await store_.head(first_, std::move(limits));
    if (!info && !is_answer(info.error())) co_return info.error();
    const bool same = info.has_value() && info->tag == tag_;
    report.tags_change = find("the tags of two puts", same && tag_ != stale_tag_,
                              tag_ == stale_tag_ ? "are the same"
                              : !same            ? "differ from what is said of the object later"
                                                 : "differ");
    co_return all_tried();
  }

  /// Whether a part of the first object is right.
  Task<Result<bool>> is_right(Part part, size_t offset, size_t length) {
    const Result<Fetched> got = co_await get(first_, part);
    if (!got && !is_answer(got.error())) co_return got.error();
    co_return got.has_value() &&
        got->object_size ==
            kScratchBytes&& std::ranges::equal(got->data, Bytes(new_).subspan(offset, length));
  }
  Task<Result<void>> try_parts() {
    USBD_CO_TRY(const bool middle, co_await is_right(Part::range(100, 50), 100, 50));
    USBD_CO_TRY(const bool across, co_await is_right(Part::range(1000, 50), 1000, 3));
    USBD_CO_TRY(const bool beyond, co_await is_right(Part::range(2000, 50), kScratchBytes, 0));
    report.gets_ranges = find("gets of ranges", middle && across && beyond,
                              !middle   ? "gave other bytes than those in the middle"
                              : !across ? "went wrong across the end"
                              : !beyond ? "went wrong behind the end"
                                        : "gave the right bytes");
    USBD_CO_TRY(const bool tail, co_await is_right(Part::tail(64), kScratchBytes - 64, 64));
    USBD_CO_TRY(const bool all, co_await is_right(Part::tail(5000), 0, kScratchBytes));
    report.gets_tails = find("gets of the last bytes", tail && all,
                             !tail  ? "gave other bytes than the last"
                             : !all ? "went wrong for more than the object has"
                                    : "gave the right bytes");
    co_return all_tried();
  }

  /// A put that a store must refuse; true if it did, and nothing has changed.
  Task<Result<bool>> is_refused(Condition condition, std::string tried) {
    const Result<std::string> done = co_await put(first_, other_, std::move(condition));
    if (!done && !is_answer(done.error())) co_return done.error();
    USBD_CO_TRY(const bool unchanged, co_await holds(new_));
    if (done) {
      find(std::move(tried), false, "was said to have been made: the condition is ignored");
    } else if (!done.error().is(Errc::kExists)) {
      find(std::move(tried), false, "cannot be asked for: " + done.error().message());
    } else if (!unchanged) {
      find(std::move(tried), false, "was refused, and changed the object all the same");
    } else {
      find(std::move(tried), true, "was refused");
    }
    // What the next steps compare with.
    if (!unchanged || done) {
      USBD_CO_TRY(tag_, co_await put(first_, new_, Condition::always()));
    }
    co_return report.findings.back().works;
  }
  /// A put that a store must make; true if it did.
  Task<Result<bool>> is_made(const std::string& name, Condition condition, std::string tried) {
    const Result<std::string> done = co_await put(name, new_, std::move(condition));
    if (!done && !is_answer(done.error())) co_return done.error();
    if (done && name == first_) tag_ = *done;
    co_return find(std::move(tried), done.has_value(),
                   done ? "was made" : "was refused: " + done.error().message());
  }

  Task<Result<void>> try_matches() {
    if (!store_.abilities().put_if_matches) {
      find("a put that depends on the object's tag", false,
           "does not exist for this kind of store");
      co_return all_tried();
    }
    USBD_CO_TRY(const bool stale,
                co_await is_refused(Condition::matches(stale_tag_), "a put whose tag is stale"));
    USBD_CO_TRY(const bool present, co_await is_made(first_, Condition::matches(tag_),
                                                     "a put whose tag is the object's"));
    report.put_if_matches = stale && present;
    co_return all_tried();
  }
  Task<Result<void>> try_absent() {
    if (!store_.abilities().put_if_absent) {
      find("a put that depends on there being no object", false,
           "does not exist for this kind of store");
      co_return all_tried();
    }
    USBD_CO_TRY(const bool second, co_await is_refused(Condition::absent(),
                                                       "the creation of an object that is there"));
    USBD_CO_TRY(const bool first, co_await is_made(second_, Condition::absent(),
                                                   "the creation of an object that is not there"));
    report.put_if_absent = second && first;
    co_return all_tried();
  }

  Task<Result<void>> try_list() {
    std::string after;
    bool found = false;
    for (size_t page = 0; page < kPagesMax && !found; ++page) {
      CallLimits limits = limits_;
      const Result<ListPage> listed =
          co_await store_.list(stem_, after, kListPageMax, std::move(limits));
      if (!listed && !is_answer(listed.error())) co_return listed.error();
      if (!listed) break;
      found = std::ranges::any_of(listed->objects, [&](const ObjectInfo& info) {
        return info.name == first_ && info.size == kScratchBytes;
      });
      if (!listed->more || listed->objects.empty()) break;
      after = listed->objects.back().name;
    }
    report.lists = find("a listing right after a put", found,
                        found ? "has the object and its size" : "lacks the object or its size");
    co_return all_tried();
  }

  Task<Result<void>> try_remove() {
    for (int times = 0; times < 2; ++times) {
      CallLimits limits = limits_;
      const Result<void> removed = co_await store_.remove(first_, std::move(limits));
      if (removed) continue;
      if (!is_answer(removed.error()) && !removed.error().is(Errc::kAccess)) {
        co_return removed.error();
      }
      find("a removal", false, "was refused: " + removed.error().message());
      co_return all_tried();
    }
    const Result<Fetched> got = co_await get(first_, Part::whole(kScratchBytes));
    if (!got && !is_answer(got.error())) co_return got.error();
    const bool gone = !got && got.error().is(Errc::kNotFound);
    report.removes = find("a get after a removal", gone,
                          gone ? "found nothing" : "did not say that there is no such object");
    co_return all_tried();
  }

  ObjectStore& store_;
  const CallLimits limits_;
  std::string stem_;
  std::string first_;
  std::string second_;
  std::vector<std::byte> old_;
  std::vector<std::byte> new_;
  std::vector<std::byte> other_;
  std::string stale_tag_;
  std::string tag_;
};

}  // namespace

std::string ProbeReport::text() const {
  std::string lines;
  for (const Finding& finding : findings) {
    lines += fmt::format("{}: {} {}\n", finding.works ? "yes" : "no", finding.tried, finding.seen);
  }
  return lines;
}

Task<Result<ProbeReport>> probe(ObjectStore& store, std::string prefix, Rng& rng,
                                CallLimits limits) {
  Prober prober(store, std::move(prefix), rng, std::move(limits));
  const Result<void> done = co_await prober.run();
  co_await prober.clean_up();
  if (!done) co_return done.error();
  co_return std::move(prober.report);
}

}  // namespace usbd::objects
