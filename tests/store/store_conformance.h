// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite for object stores: what every kind must do, tested through its interface
// alone. A test program describes its kind, and the tests of store_conformance*.cc run for it:
//
//     INSTANTIATE_TEST_SUITE_P(Memory, StoreConformance, ::testing::Values(memory_kind()));
//
// What a kind cannot do by its Abilities is checked to be refused, not skipped.

#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "objects/object_store.h"

namespace usbd::objects::testing {

/// A container that was empty when this was made, and a loop. Gone with this.
class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;

  /// Opens one more store of the container, as another process would. Called on the loop.
  virtual Task<Result<std::unique_ptr<ObjectStore>>> open() = 0;
  /// Runs the loop until `task` has finished.
  virtual void run(Task<void> task) = 0;
};

struct StoreKind {
  /// Shows in test names.
  std::string name;
  /// Errors: the kind cannot be tested here; the test is skipped, and says why.
  std::function<Result<std::unique_ptr<StoreUnderTest>>()> make;
  /// Whether a listing knows every change made before it; else it is given some time.
  bool lists_at_once = true;
  /// Of puts that race for one object some may be told kAgain in place of kExists.
  bool racers_may_fail = false;
  /// Of the large object. Units: bytes.
  size_t large_bytes = 64U << 20;
  /// Objects in the test of paging; over 1000.
  size_t listed_names = 2500;
  unsigned race_rounds = 12;
  /// Operations of each of the 8 clients in the test under load.
  unsigned load_operations = 60;

  friend std::ostream& operator<<(std::ostream& out, const StoreKind& kind) {
    return out << kind.name;
  }
};

/// A test: a coroutine that is given the container, its kind, and one open store.
struct StoreTest {
  StoreUnderTest& under_test;
  const StoreKind& kind;
  ObjectStore& store;
};

class StoreConformance : public ::testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override;
  /// Opens a store, runs `test` on it, and closes it.
  void run(Task<void> (*test)(StoreTest& test));

 private:
  static Task<void> with_store(StoreUnderTest& under_test, const StoreKind& kind,
                               Task<void> (*test)(StoreTest& test));

  std::unique_ptr<StoreUnderTest> under_test_;
};

// What tests are made of. They run on the loop.

using Data = std::vector<std::byte>;

/// Bytes that differ for each seed.
Data random_data(uint64_t seed, size_t size);

Task<Result<std::string>> put(ObjectStore& store, std::string name, const Data& data,
                              Condition condition = Condition::always());
Task<Result<Fetched>> get(ObjectStore& store, std::string name, Part part);
Task<Result<Fetched>> get_all(ObjectStore& store, std::string name);
Task<Result<ObjectInfo>> head(ObjectStore& store, std::string name);
Task<Result<ListPage>> list(ObjectStore& store, std::string prefix, std::string after, size_t most);
Task<Result<void>> remove(ObjectStore& store, std::string name);
/// All names with a prefix, page by page; a failed expectation and none if a call fails.
Task<std::vector<std::string>> list_all(ObjectStore& store, std::string prefix, size_t page);
/// Puts "x" under each name, eight at a time.
Task<void> put_names(ObjectStore& store, const std::vector<std::string>& names);

/// Whether `result` is a value; else a failed expectation with its error.
template <typename T>
bool succeeded(const Result<T>& result, const std::string& what) {
  EXPECT_TRUE(result.has_value()) << what << ": " << (result ? "" : result.error().message());
  return result.has_value();
}

/// Expects the error `code`.
template <typename T>
void expect_error(const Result<T>& result, Errc code, const std::string& what) {
  EXPECT_FALSE(result.has_value()) << what << ": must fail";
  if (!result) {
    EXPECT_TRUE(result.error().is(code)) << what << ": " << result.error().message();
  }
}

}  // namespace usbd::objects::testing
