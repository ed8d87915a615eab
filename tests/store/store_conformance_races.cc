// SPDX-License-Identifier: Apache-2.0
//
// The suite's tests of what goes on at once: conditions, alone and raced for; many clients; calls
// that are given up.

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "async/scope.h"
#include "base/random.h"
#include "store/store_conformance.h"

namespace usbd::objects::testing {
namespace {

constexpr size_t kClients = 8;

Task<void> creates_once(StoreTest& test) {
  const Data first = random_data(1, 100);
  const Data second = random_data(2, 100);
  const Result<std::string> made = co_await put(test.store, "x", first, Condition::absent());
  if (!test.store.abilities().put_if_absent) {
    expect_error(made, Errc::kNotSupported, "put if absent");
    expect_error(co_await get_all(test.store, "x"), Errc::kNotFound, "what it put");
    co_return;
  }
  if (!succeeded(made, "first")) co_return;
  expect_error(co_await put(test.store, "x", second, Condition::absent()), Errc::kExists, "second");
  Result<Fetched> got = co_await get_all(test.store, "x");
  if (succeeded(got, "get")) {
    EXPECT_TRUE(got->data == first && got->tag == *made);
  }
  succeeded(co_await remove(test.store, "x"), "remove");
  succeeded(co_await put(test.store, "x", second, Condition::absent()), "after the removal");
  got = co_await get_all(test.store, "x");
  if (succeeded(got, "get")) {
    EXPECT_TRUE(got->data == second);
  }
}
TEST_P(StoreConformance, CreatesAnObjectOnlyOnce) {
  run(creates_once);
}

Task<void> replaces_only_what_matches(StoreTest& test) {
  const Data first = random_data(1, 100);
  const Data second = random_data(2, 100);
  const Result<std::string> old_tag = co_await put(test.store, "x", first);
  if (!succeeded(old_tag, "put")) co_return;
  const Result<std::string> new_tag =
      co_await put(test.store, "x", second, Condition::matches(*old_tag));
  if (!test.store.abilities().put_if_matches) {
    expect_error(new_tag, Errc::kNotSupported, "put if matches");
    const Result<Fetched> got = co_await get_all(test.store, "x");
    if (succeeded(got, "get")) {
      EXPECT_TRUE(got->data == first);
    }
    co_return;
  }
  if (!succeeded(new_tag, "with the present tag")) co_return;
  EXPECT_NE(*new_tag, *old_tag);
  expect_error(co_await put(test.store, "x", first, Condition::matches(*old_tag)), Errc::kExists,
               "with a stale tag");
  const Result<Fetched> got = co_await get_all(test.store, "x");
  if (succeeded(got, "get")) {
    EXPECT_TRUE(got->data == second && got->tag == *new_tag);
  }
  succeeded(co_await remove(test.store, "x"), "remove");
  expect_error(co_await put(test.store, "x", first, Condition::matches(*new_tag)), Errc::kExists,
               "of what was removed");
  expect_error(co_await get_all(test.store, "x"), Errc::kNotFound, "what it put");
}
TEST_P(StoreConformance, ReplacesOnlyTheObjectThatMatches) {
  run(replaces_only_what_matches);
}

struct Race {
  bool may_fail = false;
  std::array<Data, kClients> contents;
  std::vector<size_t> winners;
  std::string tag;
};

Task<void> compete(ObjectStore& store, std::string name, Condition condition, Race& race,
                   size_t client) {
  const Result<std::string> done =
      co_await put(store, std::move(name), race.contents[client], std::move(condition));
  if (done) {
    race.winners.push_back(client);
    race.tag = *done;
  } else if (!race.may_fail || !done.error().is(Errc::kAgain)) {
    EXPECT_TRUE(done.error().is(Errc::kExists)) << done.error().message();
  }
}

/// Eight puts of one condition at once, through two stores. Returns the tag of the winner's. What
/// they put is new in each race: a tag may be a hash, which the same contents would not change.
Task<std::string> race_for(StoreTest& test, ObjectStore& other, std::string name,
                           Condition condition, uint64_t seed) {
  Race race;
  race.may_fail = test.kind.racers_may_fail;
  for (size_t client = 0; client < kClients; ++client) {
    race.contents[client] = random_data(seed * kClients + client, 2000 + client);
  }
  Scope scope;
  for (size_t client = 0; client < kClients; ++client) {
    ObjectStore& store = client % 2 == 0 ? test.store : other;
    scope.spawn(compete(store, name, condition, race, client));
  }
  co_await scope.close();
  EXPECT_EQ(race.winners.size(), 1U);
  const Result<Fetched> got = co_await get_all(other, name);
  if (succeeded(got, "get") && race.winners.size() == 1) {
    EXPECT_TRUE(got->data == race.contents[race.winners.front()]);
    EXPECT_EQ(got->tag, race.tag);
  }
  co_return race.tag;
}

Task<void> has_one_winner(StoreTest& test) {
  const Abilities can = test.store.abilities();
  if (!can.put_if_absent || !can.put_if_matches) co_return;
  Result<std::unique_ptr<ObjectStore>> other = co_await test.under_test.open();
  if (!succeeded(other, "open a second store")) co_return;
  for (unsigned round = 0; round < test.kind.race_rounds; ++round) {
    const std::string name = fmt::format("race/{}", round);
    std::string tag = co_await race_for(test, **other, name, Condition::absent(), 3 * round + 10);
    for (unsigned times = 1; times <= 2; ++times) {
      tag = co_await race_for(test, **other, name, Condition::matches(tag), 3 * round + 10 + times);
    }
  }
  co_await (*other)->close();
}
TEST_P(StoreConformance, LetsExactlyOneOfEightWin) {
  run(has_one_winner);
}

/// One of the clients of the test under load, with names of its own.
Task<void> load_client(ObjectStore& store, uint64_t client, unsigned operations) {
  SeededRng rng(client);
  std::map<std::string, Data> model;
  for (unsigned i = 0; i < operations; ++i) {
    const std::string name = fmt::format("load/{}/{}", client, rng.below(5));
    const uint64_t what = rng.below(10);
    if (what < 5) {
      model[name] = random_data(rng.next(), rng.below(rng.one_in(4) ? 300'000 : 5000));
      if (!succeeded(co_await put(store, name, model[name]), name)) co_return;
    } else if (what < 6) {
      model.erase(name);
      if (!succeeded(co_await remove(store, name), name)) co_return;
    } else if (!model.contains(name)) {
      expect_error(co_await get_all(store, name), Errc::kNotFound, name);
    } else {
      const Data& wanted = model[name];
      const uint64_t offset = rng.below(wanted.size() + 1);
      const Result<Fetched> got = co_await get(store, name, Part::range(offset, 100'000));
      if (!succeeded(got, name)) co_return;
      const size_t length = std::min<size_t>(wanted.size() - offset, 100'000);
      EXPECT_TRUE(std::ranges::equal(got->data, Bytes(wanted).subspan(offset, length))) << name;
    }
  }
  for (const auto& [name, wanted] : model) {
    const Result<Fetched> got = co_await get_all(store, name);
    if (succeeded(got, name)) {
      EXPECT_TRUE(got->data == wanted) << name;
    }
  }
}

Task<void> serves_many(StoreTest& test) {
  Scope scope;
  for (uint64_t client = 0; client < kClients; ++client) {
    scope.spawn(load_client(test.store, client, test.kind.load_operations));
  }
  co_await scope.close();
}
TEST_P(StoreConformance, ServesEightClientsAtOnce) {
  run(serves_many);
}

/// An object that says of itself what it must look like: all bytes are `value`, and so many.
Data uniform(uint64_t value) {
  return Data(20'000 + value * 3000, static_cast<std::byte>(value));
}

Task<void> overwrite_uniform(ObjectStore& store, bool& done) {
  for (uint64_t value = 1; value <= 30; ++value) {
    if (!succeeded(co_await put(store, "uniform", uniform(value)), "overwrite")) break;
  }
  done = true;
}

Task<void> read_uniform(ObjectStore& store, const bool& done) {
  while (!done) {
    const Result<Fetched> got = co_await get_all(store, "uniform");
    if (!succeeded(got, "get")) co_return;
    const auto value = got->data.empty() ? 0 : static_cast<uint64_t>(got->data.front());
    EXPECT_TRUE(got->data == uniform(value)) << "a mixture, or cut";
  }
}

Task<void> shows_whole_objects(StoreTest& test) {
  if (!succeeded(co_await put(test.store, "uniform", uniform(0)), "put")) co_return;
  bool done = false;
  Scope scope;
  scope.spawn(overwrite_uniform(test.store, done));
  for (int reader = 0; reader < 3; ++reader) scope.spawn(read_uniform(test.store, done));
  co_await scope.close();
}
TEST_P(StoreConformance, ShowsOldOrNewAndNeverAMixture) {
  run(shows_whole_objects);
}

/// All calls with these limits; each must fail with `code` or, unless `surely`, may succeed.
Task<void> expect_given_up(StoreTest& test, CallLimits limits, Errc code, bool surely) {
  const Data data = random_data(5, 3'000'000);
  const auto check = [&](const auto& result, const char* what) {
    if (surely || !result) expect_error(result, code, what);
  };
  const Nanos start = Loop::current().now();
  CallLimits own = limits;
  check(co_await test.store.put("given/up", data, Condition::always(), std::move(own)), "put");
  own = limits;
  check(co_await test.store.get("there", Part::whole(1000), std::move(own)), "get");
  own = limits;
  check(co_await test.store.head("there", std::move(own)), "head");
  own = limits;
  check(co_await test.store.list("", "", 10, std::move(own)), "list");
  own = limits;
  check(co_await test.store.remove("given/up", std::move(own)), "remove");
  EXPECT_LT(Loop::current().now() - start, std::chrono::seconds(10));
}

Task<void> keeps_limits(StoreTest& test) {
  const Data data = random_data(6, 100);
  if (!succeeded(co_await put(test.store, "there", data), "put")) co_return;
  std::stop_source stop;
  stop.request_stop();
  CallLimits unwanted{.timeout = Nanos(0), .stop = stop.get_token()};
  co_await expect_given_up(test, unwanted, Errc::kCanceled, true);
  CallLimits hurried{.timeout = Nanos(1), .stop = {}};
  co_await expect_given_up(test, hurried, Errc::kTimedOut, false);
  // Neither harms the store.
  const Result<Fetched> got = co_await get_all(test.store, "there");
  if (succeeded(got, "get")) {
    EXPECT_TRUE(got->data == data);
  }
  succeeded(co_await put(test.store, "given/up", data), "put after all");
}
TEST_P(StoreConformance, EndsCallsThatAreLateOrNoLongerWanted) {
  run(keeps_limits);
}

Task<void> put_until_stopped(ObjectStore& store, std::stop_token stop, Errc& ended) {
  const Data data = random_data(7, 8'000'000);
  for (int times = 0; times < 100'000; ++times) {
    CallLimits limits{.timeout = Nanos(0), .stop = stop};
    const Result<std::string> done =
        co_await store.put("large", data, Condition::always(), std::move(limits));
    if (!done) {
      ended = static_cast<Errc>(done.error().number());
      co_return;
    }
  }
}

Task<void> stops_in_the_middle(StoreTest& test) {
  std::stop_source stop;
  Errc ended = Errc::kIo;
  Scope scope;
  scope.spawn(put_until_stopped(test.store, stop.get_token(), ended));
  co_await Loop::current().sleep_for(std::chrono::microseconds(20));
  const Nanos start = Loop::current().now();
  stop.request_stop();
  co_await scope.close();
  EXPECT_EQ(ended, Errc::kCanceled);
  EXPECT_LT(Loop::current().now() - start, std::chrono::seconds(10));
}
TEST_P(StoreConformance, StopsAPutInTheMiddle) {
  run(stops_in_the_middle);
}

Task<void> outlives_its_store(StoreTest& test) {
  Result<std::unique_ptr<ObjectStore>> other = co_await test.under_test.open();
  if (!succeeded(other, "open a second store")) co_return;
  const Data data = random_data(8, 1000);
  const Result<std::string> tag = co_await put(**other, "kept", data);
  co_await (*other)->close();
  other->reset();
  const Result<Fetched> got = co_await get_all(test.store, "kept");
  if (succeeded(tag, "put") && succeeded(got, "get")) {
    EXPECT_TRUE(got->data == data);
    EXPECT_EQ(got->tag, *tag);
  }
}
TEST_P(StoreConformance, KeepsObjectsWhenTheStoreThatPutThemIsClosed) {
  run(outlives_its_store);
}

}  // namespace
}  // namespace usbd::objects::testing
