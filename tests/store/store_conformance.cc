// SPDX-License-Identifier: Apache-2.0
//
// The suite's fixture and helpers, and its tests of single calls: what is put is got, whole and in
// parts, under every name.

#include "store/store_conformance.h"

#include <algorithm>

#include <fmt/format.h>

#include "async/scope.h"
#include "base/random.h"

namespace usbd::objects::testing {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StoreConformance);

void StoreConformance::SetUp() {
  Result<std::unique_ptr<StoreUnderTest>> made = GetParam().make();
  if (!made) GTEST_SKIP() << made.error().message();
  under_test_ = *std::move(made);
}

void StoreConformance::run(Task<void> (*test)(StoreTest& test)) {
  under_test_->run(with_store(*under_test_, GetParam(), test));
}

Task<void> StoreConformance::with_store(StoreUnderTest& under_test, const StoreKind& kind,
                                        Task<void> (*test)(StoreTest& test)) {
  Result<std::unique_ptr<ObjectStore>> store = co_await under_test.open();
  if (!succeeded(store, "open")) co_return;
  StoreTest given{.under_test = under_test, .kind = kind, .store = **store};
  co_await test(given);
  co_await (*store)->close();
}

Data random_data(uint64_t seed, size_t size) {
  Data data(size);
  SeededRng rng(seed);
  rng.fill(data);
  return data;
}

Task<Result<std::string>> put(ObjectStore& store, std::string name, const Data& data,
                              Condition condition) {
  CallLimits limits;
  co_return co_await store.put(std::move(name), data, std::move(condition), std::move(limits));
}

Task<Result<Fetched>> get(ObjectStore& store, std::string name, Part part) {
  CallLimits limits;
  co_return co_await store.get(std::move(name), part, std::move(limits));
}

Task<Result<Fetched>> get_all(ObjectStore& store, std::string name) {
  return get(store, std::move(name), Part::whole(UINT64_MAX));
}

Task<Result<ObjectInfo>> head(ObjectStore& store, std::string name) {
  CallLimits limits;
  co_return co_await store.head(std::move(name), std::move(limits));
}

Task<Result<ListPage>> list(ObjectStore& store, std::string prefix, std::string after,
                            size_t most) {
  CallLimits limits;
  co_return co_await store.list(std::move(prefix), std::move(after), most, std::move(limits));
}

Task<Result<void>> remove(ObjectStore& store, std::string name) {
  CallLimits limits;
  co_return co_await store.remove(std::move(name), std::move(limits));
}

Task<std::vector<std::string>> list_all(ObjectStore& store, std::string prefix, size_t page) {
  std::vector<std::string> names;
  std::string after;
  for (;;) {
    const Result<ListPage> listed = co_await list(store, prefix, after, page);
    if (!succeeded(listed, "list")) co_return std::vector<std::string>();
    EXPECT_LE(listed->objects.size(), page);
    for (const ObjectInfo& object : listed->objects) names.push_back(object.name);
    if (!listed->more || listed->objects.empty()) co_return std::move(names);
    after = names.back();
  }
}

namespace {

constexpr size_t kClients = 8;

Task<void> put_every(ObjectStore& store, const std::vector<std::string>& names, size_t first) {
  const Data data(1, std::byte{'x'});
  for (size_t i = first; i < names.size(); i += kClients) {
    const Result<std::string> done = co_await put(store, names[i], data);
    if (!succeeded(done, names[i])) co_return;
  }
}

/// Expects that a part of an object is so many bytes of `data`, from `offset` on.
Task<void> expect_part(ObjectStore& store, Part part, const Data& data, size_t offset,
                       size_t length) {
  const Result<Fetched> got = co_await get(store, "object", part);
  if (!succeeded(got, "get")) co_return;
  EXPECT_TRUE(std::ranges::equal(got->data, Bytes(data).subspan(offset, length)))
      << got->data.size() << " bytes instead of " << length << " from " << offset;
  EXPECT_EQ(got->object_size, data.size());
  EXPECT_FALSE(got->tag.empty());
}

}  // namespace

Task<void> put_names(ObjectStore& store, const std::vector<std::string>& names) {
  Scope scope;
  for (size_t client = 0; client < kClients; ++client) {
    scope.spawn(put_every(store, names, client));
  }
  co_await scope.close();
}

namespace {

Task<void> gives_what_was_put(StoreTest& test) {
  const Data first = random_data(1, 5000);
  const Data second = random_data(2, 70'000);
  const Result<std::string> first_tag = co_await put(test.store, "dir/object", first);
  if (!succeeded(first_tag, "put")) co_return;
  EXPECT_FALSE(first_tag->empty());
  Result<Fetched> got = co_await get_all(test.store, "dir/object");
  if (!succeeded(got, "get")) co_return;
  EXPECT_TRUE(got->data == first);
  EXPECT_EQ(got->object_size, first.size());
  EXPECT_EQ(got->tag, *first_tag);
  const Result<std::string> second_tag = co_await put(test.store, "dir/object", second);
  if (!succeeded(second_tag, "overwrite")) co_return;
  EXPECT_NE(*second_tag, *first_tag);
  got = co_await get_all(test.store, "dir/object");
  if (!succeeded(got, "get")) co_return;
  EXPECT_TRUE(got->data == second);
  EXPECT_EQ(got->tag, *second_tag);
  const Result<ObjectInfo> info = co_await head(test.store, "dir/object");
  if (!succeeded(info, "head")) co_return;
  EXPECT_EQ(info->name, "dir/object");
  EXPECT_EQ(info->size, second.size());
  EXPECT_EQ(info->tag, *second_tag);
}
TEST_P(StoreConformance, GivesWhatWasPutAndWhatReplacedIt) {
  run(gives_what_was_put);
}

Task<void> keeps_an_empty_object(StoreTest& test) {
  const Data nothing;
  if (!succeeded(co_await put(test.store, "object", nothing), "put")) co_return;
  co_await expect_part(test.store, Part::whole(0), nothing, 0, 0);
  co_await expect_part(test.store, Part::range(0, 10), nothing, 0, 0);
  co_await expect_part(test.store, Part::range(7, 10), nothing, 0, 0);
  co_await expect_part(test.store, Part::tail(10), nothing, 0, 0);
  const Result<ObjectInfo> info = co_await head(test.store, "object");
  if (succeeded(info, "head")) {
    EXPECT_EQ(info->size, 0U);
  }
}
TEST_P(StoreConformance, KeepsAnEmptyObject) {
  run(keeps_an_empty_object);
}

Task<void> gives_parts(StoreTest& test) {
  const Data data = random_data(3, 10'007);
  if (!succeeded(co_await put(test.store, "object", data), "put")) co_return;
  co_await expect_part(test.store, Part::range(0, 1), data, 0, 1);
  co_await expect_part(test.store, Part::range(4096, 4096), data, 4096, 4096);
  co_await expect_part(test.store, Part::range(10'000, 7), data, 10'000, 7);
  co_await expect_part(test.store, Part::range(10'000, 8), data, 10'000, 7);
  co_await expect_part(test.store, Part::range(0, 10'007), data, 0, 10'007);
  co_await expect_part(test.store, Part::range(0, 1'000'000), data, 0, 10'007);
  co_await expect_part(test.store, Part::range(10'006, 100), data, 10'006, 1);
  co_await expect_part(test.store, Part::range(10'007, 1), data, 10'007, 0);
  co_await expect_part(test.store, Part::range(1ULL << 40U, 100), data, 10'007, 0);
  co_await expect_part(test.store, Part::tail(1), data, 10'006, 1);
  co_await expect_part(test.store, Part::tail(64), data, 9943, 64);
  co_await expect_part(test.store, Part::tail(10'007), data, 0, 10'007);
  co_await expect_part(test.store, Part::tail(10'008), data, 0, 10'007);
  co_await expect_part(test.store, Part::whole(10'007), data, 0, 10'007);
  expect_error(co_await get(test.store, "object", Part::whole(10'006)), Errc::kOverflow, "whole");
  expect_error(co_await get(test.store, "object", Part::whole(0)), Errc::kOverflow, "whole");
}
TEST_P(StoreConformance, GivesPartsAndEndsThemWhereTheObjectEnds) {
  run(gives_parts);
}

Task<void> says_that_there_is_none(StoreTest& test) {
  static constexpr const char* kNames[] = {"nothing", "no/such/thing"};
  for (const char* name : kNames) {
    expect_error(co_await get_all(test.store, name), Errc::kNotFound, "get whole");
    expect_error(co_await get(test.store, name, Part::range(5, 5)), Errc::kNotFound, "get a range");
    expect_error(co_await get(test.store, name, Part::tail(5)), Errc::kNotFound, "get a tail");
    expect_error(co_await head(test.store, name), Errc::kNotFound, "head");
    succeeded(co_await remove(test.store, name), "remove of nothing");
  }
}
TEST_P(StoreConformance, SaysThatThereIsNoSuchObjectAndRemovesIt) {
  run(says_that_there_is_none);
}

Task<void> removes(StoreTest& test) {
  const Data data = random_data(4, 100);
  const std::vector<std::string> names = {"a", "a/b", "a/b/c", "a/b/d"};
  for (const std::string& name : names) {
    if (!succeeded(co_await put(test.store, name, data), name)) co_return;
  }
  for (const std::string& name : names) {
    succeeded(co_await remove(test.store, name), name);
    succeeded(co_await remove(test.store, name), name + " again");
    expect_error(co_await get_all(test.store, name), Errc::kNotFound, name);
    expect_error(co_await head(test.store, name), Errc::kNotFound, name);
  }
  if (test.kind.lists_at_once) {
    EXPECT_TRUE((co_await list_all(test.store, "", 10)).empty());
  }
  succeeded(co_await put(test.store, "a/b/c", data), "put after the removal");
  succeeded(co_await get_all(test.store, "a/b/c"), "get after that");
}
TEST_P(StoreConformance, RemovesObjectsAndMakesThemAgain) {
  run(removes);
}

std::vector<std::string> odd_names() {
  std::vector<std::string> names = {
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/x",
      "-",
      "_",
      "--x--",
      "a",
      "A",
      "a/b",
      "a/b/c",
      "a-",
      "a.b",
      "a0",
      "d/.hidden/x",
      "d/..x",
      "d/x../y",
      "d/.usbd/lock",
      "usbd/lock",
      std::string(512, 'n'),
      std::string(511, 'n'),
      std::string(120, 'n'),
      std::string(119, 'n'),
      std::string(120, 'n') + "/x",
      std::string(255, 'n') + "/x"};
  std::string deep = "d";
  while (deep.size() < 510) deep += "/d";
  names.push_back(deep);
  return names;
}

Task<void> takes_odd_names(StoreTest& test) {
  std::vector<std::string> names = odd_names();
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_TRUE(is_object_name(names[i])) << names[i];
    succeeded(co_await put(test.store, names[i], random_data(i, 50 + i)), names[i]);
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const Result<Fetched> got = co_await get_all(test.store, names[i]);
    if (succeeded(got, names[i])) {
      EXPECT_TRUE(got->data == random_data(i, 50 + i)) << names[i];
    }
  }
  std::ranges::sort(names);
  if (test.kind.lists_at_once) {
    EXPECT_EQ(co_await list_all(test.store, "", 3), names);
  }
}
TEST_P(StoreConformance, TakesEveryNameThatIsAllowed) {
  run(takes_odd_names);
}

Task<void> keeps_a_large_object(StoreTest& test) {
  const Data data = random_data(9, test.kind.large_bytes);
  if (!succeeded(co_await put(test.store, "large", data), "put")) co_return;
  const Result<Fetched> got = co_await get_all(test.store, "large");
  if (!succeeded(got, "get")) co_return;
  EXPECT_TRUE(got->data == data);
  const size_t middle = data.size() / 2 - 1;
  const Result<Fetched> part = co_await get(test.store, "large", Part::range(middle, 5000));
  if (!succeeded(part, "get a range")) co_return;
  EXPECT_TRUE(std::ranges::equal(part->data, Bytes(data).subspan(middle, 5000)));
}
TEST_P(StoreConformance, KeepsALargeObject) {
  run(keeps_a_large_object);
}

Task<void> gives_tags_that_change(StoreTest& test) {
  std::vector<std::string> tags;
  for (uint64_t i = 0; i < 5; ++i) {
    const Result<std::string> tag = co_await put(test.store, "object", random_data(i, 300));
    if (!succeeded(tag, "put")) co_return;
    tags.push_back(*tag);
    const Result<Fetched> part = co_await get(test.store, "object", Part::range(10, 10));
    if (succeeded(part, "get")) {
      EXPECT_EQ(part->tag, *tag);
    }
  }
  std::ranges::sort(tags);
  EXPECT_TRUE(std::ranges::adjacent_find(tags) == tags.end());
}
TEST_P(StoreConformance, GivesTagsThatChangeWithTheContents) {
  run(gives_tags_that_change);
}

}  // namespace
}  // namespace usbd::objects::testing
