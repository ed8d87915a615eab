// SPDX-License-Identifier: Apache-2.0
//
// The suite's tests of listings: order, pages, prefixes, where a page begins.

#include <algorithm>

#include <fmt/format.h>

#include "store/store_conformance.h"

namespace usbd::objects::testing {
namespace {

constexpr int kLateListingTries = 50;

/// Expects the names of a listing, at once or after some time, as the kind has it.
Task<void> expect_names(StoreTest& test, std::string prefix, size_t page,
                        std::vector<std::string> wanted) {
  std::vector<std::string> names;
  for (int tries = 0; tries < (test.kind.lists_at_once ? 1 : kLateListingTries); ++tries) {
    names = co_await list_all(test.store, prefix, page);
    if (names == wanted) co_return;
    if (!test.kind.lists_at_once) {
      co_await Loop::current().sleep_for(std::chrono::milliseconds(100));
    }
  }
  EXPECT_EQ(names.size(), wanted.size()) << "prefix \"" << prefix << "\", pages of " << page;
  const auto [name, other] = std::ranges::mismatch(names, wanted);
  EXPECT_TRUE(name == names.end() && other == wanted.end())
      << (name == names.end() ? "nothing" : *name) << " where "
      << (other == wanted.end() ? "nothing" : *other) << " belongs";
}

Task<void> lists_nothing(StoreTest& test) {
  const Result<ListPage> page = co_await list(test.store, "", "", kListPageMax);
  if (!succeeded(page, "list")) co_return;
  EXPECT_TRUE(page->objects.empty());
  EXPECT_FALSE(page->more);
}
TEST_P(StoreConformance, ListsNothingInAnEmptyContainer) {
  run(lists_nothing);
}

Task<void> lists_many(StoreTest& test) {
  std::vector<std::string> names;
  for (size_t i = 0; i < test.kind.listed_names; ++i) {
    const char* const shape[] = {"vol/d/1/{:08x}", "vol/d/2/{:08x}", "vol-{:08x}", "vol/{:x}.m"};
    names.push_back(fmt::format(fmt::runtime(shape[i % 4]), i));
  }
  co_await put_names(test.store, names);
  std::ranges::sort(names);
  co_await expect_names(test, "", 1000, names);
  co_await expect_names(test, "", 333, names);
  std::vector<std::string> some;
  std::ranges::copy_if(names, std::back_inserter(some),
                       [](const std::string& name) { return name.starts_with("vol/d/2/"); });
  co_await expect_names(test, "vol/d/2/", 100, some);
}
TEST_P(StoreConformance, ListsMoreThanAThousandObjectsInPages) {
  run(lists_many);
}

Task<void> lists_by_prefix(StoreTest& test) {
  const std::vector<std::string> all = {"a",     "a-b",  "a.b",     "a/",     "a/b", "a/b-c",
                                        "a/b/c", "a/bc", "a/bc/d",  "a0",     "ab",  "ab/c",
                                        "b/a",   "b/ab", "b/b/b/b", "b/b/b/c"};
  std::vector<std::string> names;
  std::ranges::copy_if(all, std::back_inserter(names), is_object_name);
  co_await put_names(test.store, names);
  static constexpr const char* kPrefixes[] = {"",     "a",     "a/",     "a/b",     "a/b/",
                                              "a/bc", "ab",    "ab/",    "b",       "b/b/b/",
                                              "c",    "a/b/c", "a/b/c/", "b/b/b/b", "zzz/zzz"};
  for (const char* prefix : kPrefixes) {
    std::vector<std::string> wanted;
    std::ranges::copy_if(names, std::back_inserter(wanted),
                         [&](const std::string& name) { return name.starts_with(prefix); });
    co_await expect_names(test, prefix, 1, wanted);
    co_await expect_names(test, prefix, 1000, wanted);
  }
}
TEST_P(StoreConformance, ListsByPrefixInTheOrderOfBytes) {
  run(lists_by_prefix);
}

Task<void> lists_after(StoreTest& test) {
  const std::vector<std::string> names = {"a", "a-", "a/b", "a/c", "a/c/d", "a0", "b"};
  co_await put_names(test.store, names);
  co_await expect_names(test, "", 1000, names);
  // Names that exist, and names that do not.
  static constexpr const char* kAfter[] = {"a",     "a-",  "a-z", "a/a", "a/b", "a/c", "a/c/",
                                           "a/c/z", "a/z", "a0",  "b",   "c",   "A",   "a/c/d"};
  for (const char* after : kAfter) {
    const Result<ListPage> page = co_await list(test.store, "", after, 1000);
    if (!succeeded(page, after)) co_return;
    std::vector<std::string> got;
    for (const ObjectInfo& object : page->objects) got.push_back(object.name);
    std::vector<std::string> wanted;
    std::ranges::copy_if(names, std::back_inserter(wanted),
                         [&](const std::string& name) { return name > after; });
    EXPECT_EQ(got, wanted) << "after " << after;
    EXPECT_FALSE(page->more);
  }
  const Result<ListPage> page = co_await list(test.store, "a/", "a/b", 1);
  if (!succeeded(page, "list")) co_return;
  EXPECT_EQ(page->objects.size(), 1U);
  EXPECT_TRUE(page->more);
  if (!page->objects.empty()) {
    EXPECT_EQ(page->objects.front().name, "a/c");
  }
}
TEST_P(StoreConformance, ListsFromAnyNameOn) {
  run(lists_after);
}

Task<void> lists_sizes(StoreTest& test) {
  static constexpr size_t kSizes[] = {0, 1, 4096, 100'000};
  for (const size_t size : kSizes) {
    const std::string name = fmt::format("size-{}", size);
    succeeded(co_await put(test.store, name, random_data(size, size)), name);
  }
  const std::vector<std::string> names = {"size-0", "size-1", "size-100000", "size-4096"};
  co_await expect_names(test, "", 10, names);
  const Result<ListPage> page = co_await list(test.store, "", "", 10);
  if (!succeeded(page, "list")) co_return;
  for (const ObjectInfo& object : page->objects) {
    EXPECT_EQ(object.name, fmt::format("size-{}", object.size));
    const Result<ObjectInfo> info = co_await head(test.store, object.name);
    if (!object.tag.empty() && succeeded(info, "head")) {
      EXPECT_EQ(info->tag, object.tag);
    }
  }
}
TEST_P(StoreConformance, ListsTheSizesOfObjects) {
  run(lists_sizes);
}

}  // namespace
}  // namespace usbd::objects::testing
