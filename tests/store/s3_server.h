// SPDX-License-Identifier: Apache-2.0
//
// The S3 server that tests/store/s3_served.sh has started, and buckets on it.

#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/testing.h"
#include "base/random.h"
#include "objects/retrying.h"
#include "objects/s3/s3_store.h"

namespace usbd::objects::testing {

inline std::string from_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

inline bool is_swift() {
  return from_environment("USBD_S3_SERVER") == "swift";
}

/// A name for a bucket that has not been there yet.
inline std::string new_bucket() {
  static std::atomic<int> count{0};
  return fmt::format("usbd-{}-{}", ::getpid(), ++count);
}

inline S3Store::Options server_options(std::string bucket) {
  return {.keys = {{"endpoint", from_environment("USBD_S3_ENDPOINT")},
                   {"access_key_id", from_environment("USBD_S3_KEY")},
                   {"secret_key", from_environment("USBD_S3_SECRET")}},
          .container = std::move(bucket)};
}

/// Takes everything out of a store and closes it: servers in memory keep no more than they must.
inline Task<void> empty_and_close(std::unique_ptr<S3Store> store) {
  const CallLimits limits;
  for (;;) {
    const Result<ListPage> page = co_await store->list("", "", kListPageMax, limits);
    EXPECT_TRUE(page.has_value()) << page.error().message();
    if (!page || page->objects.empty()) break;
    for (const ObjectInfo& object : page->objects) {
      const Result<void> removed = co_await store->remove(object.name, limits);
      EXPECT_TRUE(removed.has_value()) << removed.error().message();
      if (!removed) break;
    }
  }
  co_await store->close();
}

/// A loop, and a bucket that is emptied at the end.
class Bucket {
 public:
  Bucket() : name_(new_bucket()) {}
  ~Bucket() {
    Result<std::unique_ptr<S3Store>> store = open();
    if (store) loop_.run(empty_and_close(*std::move(store)));
  }
  Bucket(const Bucket&) = delete;
  Bucket& operator=(const Bucket&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  usbd::testing::TestLoop& loop() { return loop_; }
  Result<std::unique_ptr<S3Store>> open() { return open(server_options(name_)); }
  /// Waits, as the daemon does, while the server is busy.
  Result<std::unique_ptr<S3Store>> open(S3Store::Options options) {
    return loop_.run(open_patiently(std::move(options)));
  }

 private:
  Task<Result<std::unique_ptr<S3Store>>> open_patiently(S3Store::Options options) {
    Retrying retrying({}, rng_, {});
    for (;;) {
      Result<std::unique_ptr<S3Store>> store = co_await S3Store::open(options, loop_.pool());
      if (store) co_return store;
      const std::optional<Error> last = co_await retrying.failed(store.error());
      if (last) co_return *last;
    }
  }

  const std::string name_;
  usbd::testing::TestLoop loop_;
  SystemRng rng_;
};

}  // namespace usbd::objects::testing
