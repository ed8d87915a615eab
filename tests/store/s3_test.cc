// SPDX-License-Identifier: Apache-2.0
//
// What only S3 has, on a real server (tests/store/s3_served.sh): credentials, buckets, TLS, tags in
// their two forms; and the server behind a proxy that lets requests fail. Suites named S3Ceph and
// S3Swift are for that server alone: Swift has one user, no TLS, no conditions and late listings.

#include <algorithm>
#include <atomic>
#include <charconv>
#include <map>
#include <span>

#include <gtest/gtest.h>

#include "base/random.h"
#include "objects/probe.h"
#include "objects/retrying_store.h"
#include "store/s3_fault_proxy.h"
#include "store/s3_server.h"

namespace usbd::objects::testing {
namespace {

using std::chrono::milliseconds;

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const std::vector<std::byte>& data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

template <typename T>
void expect_error(const Result<T>& result, Errc errc, std::string_view said = {}) {
  ASSERT_FALSE(result.has_value());
  EXPECT_TRUE(result.error().is(errc)) << result.error().message();
  EXPECT_NE(result.error().context().find(said), std::string::npos) << result.error().message();
  const std::string secret = from_environment("USBD_S3_SECRET");
  EXPECT_TRUE(secret == "minioadmin" || result.error().context().find(secret) == std::string::npos);
}

class S3Server : public ::testing::Test {
 protected:
  void SetUp() override {
    if (from_environment("USBD_S3_ENDPOINT").empty()) {
      GTEST_SKIP() << "no server: run this by tests/store/s3_served.sh";
    }
    bucket_ = std::make_unique<Bucket>();
  }
  void TearDown() override {
    for (auto& store : open_) bucket_->loop().run(store->close());
  }

  S3Store::Options options() { return server_options(bucket_->name()); }
  S3Store& open(S3Store::Options with) {
    Result<std::unique_ptr<S3Store>> store = bucket_->open(std::move(with));
    if (!store) ADD_FAILURE() << store.error().message();
    USBD_ASSERT(store.has_value());
    open_.push_back(*std::move(store));
    return *open_.back();
  }
  S3Store& open() { return open(options()); }

  template <typename T>
  T run(Task<T> task) {
    return bucket_->loop().run(std::move(task));
  }
  Result<std::string> put(ObjectStore& store, const std::string& name, std::string_view data,
                          Condition condition = {}) {
    return run(store.put(name, bytes_of(data), std::move(condition), {}));
  }
  std::string read(ObjectStore& store, const std::string& name) {
    const Result<Fetched> got = run(store.get(name, Part::whole(1 << 20), {}));
    return got.has_value() ? text_of(got->data) : got.error().message();
  }

  std::unique_ptr<Bucket> bucket_;
  std::vector<std::unique_ptr<S3Store>> open_;
};

// --- credentials and buckets
// ----------------------------------------------------------------------

class S3Ceph : public S3Server {};
class S3Swift : public S3Server {};

TEST_F(S3Server, RefusesAWrongSecret) {
  S3Store::Options with = options();
  with.keys["secret_key"] = "not-the-secret";
  expect_error(bucket_->open(with), Errc::kAccess, "the secret key is not the one");
}

TEST_F(S3Server, RefusesAnUnknownKey) {
  S3Store::Options with = options();
  with.keys["access_key_id"] = "nobody";
  // Swift calls the signature wrong.
  expect_error(bucket_->open(with), Errc::kAccess,
               is_swift() ? "(403" : "does not know this access key");
}

TEST_F(S3Server, RefusesAClockThatIsWrong) {
  S3Store::Options with = options();
  with.clock = [] { return int64_t{1'000'000'000}; };
  expect_error(bucket_->open(with), Errc::kAccess, is_swift() ? "(403" : "the clock of this host");
}

TEST_F(S3Ceph, RefusesABucketOfSomebodyElse) {
  open();
  S3Store::Options with = options();
  with.keys["access_key_id"] = from_environment("USBD_S3_OTHER_KEY");
  with.keys["secret_key"] = from_environment("USBD_S3_OTHER_SECRET");
  expect_error(bucket_->open(with), Errc::kAccess, "belongs to somebody else");
}

TEST_F(S3Server, MakesNoBucketToReadOnlyOrWhenItMayNot) {
  S3Store::Options with = options();
  with.create = false;
  expect_error(bucket_->open(with), Errc::kNotFound, "there is no such bucket");
  with.read_only = true;
  with.create = true;
  expect_error(bucket_->open(with), Errc::kNotFound, "there is no such bucket");
  S3Store& writer = open();
  ASSERT_TRUE(put(writer, "a", "x").has_value());
  EXPECT_EQ(read(open(with), "a"), "x");
}

TEST_F(S3Server, SignsNamesOfAllCharacters) {
  S3Store& store = open();
  const std::string name = "a.b_c-D/0.9/-x-/_y_/..z/...";
  const std::string odd = name.substr(0, name.size() - 4);
  ASSERT_TRUE(is_object_name(odd));
  ASSERT_TRUE(put(store, odd, "odd").has_value());
  EXPECT_EQ(read(store, odd), "odd");
}

TEST_F(S3Ceph, SpeaksTls) {
  S3Store::Options with = options();
  with.keys["endpoint"] = from_environment("USBD_S3_TLS_ENDPOINT");
  expect_error(bucket_->open(with), Errc::kAccess, "certificate");
  with.keys["ca_file"] = from_environment("USBD_S3_CA");
  S3Store& store = open(with);
  const std::string large(3 << 20, 't');
  ASSERT_TRUE(put(store, "large", large).has_value());
  const Result<Fetched> got = run(store.get("large", Part::whole(4 << 20), {}));
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_TRUE(text_of(got->data) == large);
}

// --- conditions
// -----------------------------------------------------------------------------------

TEST_F(S3Server, IsProbedForWhatItCanDo) {
  S3Store& store = open();
  SystemRng rng;
  const Result<ProbeReport> report = run(probe(store, "probe/", rng, {}));
  ASSERT_TRUE(report.has_value()) << report.error().message();
  EXPECT_TRUE(report->usable()) << report->text();
  EXPECT_EQ(report->put_if_absent, !is_swift()) << report->text();
  EXPECT_EQ(report->put_if_matches, !is_swift()) << report->text();
}

TEST_F(S3Swift, SaysThatItTakesNoConditions) {
  S3Store& store = open();
  const Result<std::string> tag = put(store, "a", "x");
  ASSERT_TRUE(tag.has_value());
  expect_error(put(store, "a", "y", Condition::absent()), Errc::kNotSupported);
  expect_error(put(store, "b", "y", Condition::absent()), Errc::kNotSupported);
  expect_error(put(store, "a", "y", Condition::matches(*tag)), Errc::kNotSupported);
  EXPECT_EQ(read(store, "a"), "x");
}

TEST_F(S3Ceph, RefusesStaleTagsWhicheverFormItKnows) {
  // A store that does not know the form yet is asked each time.
  S3Store& writer = open();
  std::string tag = *put(writer, "head", "0");
  for (int i = 1; i < 5; ++i) {
    S3Store& fresh = open();
    expect_error(put(fresh, "head", "stale", Condition::matches("0123456789abcdef")),
                 Errc::kExists);
    const Result<std::string> next = put(fresh, "head", std::to_string(i), Condition::matches(tag));
    ASSERT_TRUE(next.has_value()) << next.error().message();
    expect_error(put(fresh, "head", "stale", Condition::matches(tag)), Errc::kExists);
    tag = *next;
    EXPECT_EQ(read(writer, "head"), std::to_string(i));
  }
}

// --- behind a proxy
// -------------------------------------------------------------------------------

class S3Faults : public S3Server {
 protected:
  void SetUp() override {
    S3Server::SetUp();
    if (IsSkipped()) return;
    const std::string endpoint = from_environment("USBD_S3_ENDPOINT");
    uint16_t port = 0;
    std::from_chars(endpoint.data() + endpoint.rfind(':') + 1, endpoint.data() + endpoint.size(),
                    port);
    proxy_ = std::make_unique<FaultProxy>(
        port, [this](const TestServer::Request& request) { return choose(request); });
    direct_ = &open();
  }
  void TearDown() override {
    S3Server::TearDown();
    proxy_.reset();
  }

  /// The fault that is set, for the next request; or one of ten fails, if that is set.
  Fault choose(const TestServer::Request&) {
    if (const Fault fault = next_.exchange(Fault::kNone); fault != Fault::kNone) return fault;
    if (!random_.load()) return Fault::kNone;
    const MutexLock lock(mutex_);
    if (!rng_.one_in(10)) return Fault::kNone;
    ++injected_;
    return kAllFaults[rng_.below(std::size(kAllFaults))];
  }
  S3Store& behind_proxy() {
    S3Store::Options with = options();
    with.keys["endpoint"] = proxy_->url();
    with.http.stall = milliseconds(is_swift() ? 2000 : 500);
    return open(with);
  }
  /// One call of each kind, with `fault` for it; the errors.
  std::vector<Error> errors_of_all(S3Store& store, Fault fault) {
    std::vector<Error> errors;
    const auto note = [&]<typename T>(const Result<T>& result) {
      EXPECT_FALSE(result.has_value()) << "a call with fault " << static_cast<int>(fault);
      if (!result.has_value()) errors.push_back(result.error());
    };
    next_ = fault;
    note(run(store.get("there", Part::range(1, 2000), {})));
    next_ = fault;
    note(run(store.list("th", "", 10, {})));
    next_ = fault;
    note(put(store, "new", std::string(300'000, 'n')));
    next_ = fault;
    note(run(store.head("there", {})));
    next_ = fault;
    note(run(store.remove("gone", {})));
    next_ = Fault::kNone;
    return errors;
  }

  std::atomic<Fault> next_{Fault::kNone};
  std::atomic<bool> random_{false};
  Mutex mutex_;
  SeededRng rng_ USBD_GUARDED_BY(mutex_){7};
  std::atomic<int> injected_{0};
  std::unique_ptr<FaultProxy> proxy_;
  S3Store* direct_ = nullptr;
};

class S3CephFaults : public S3Faults {};

Errc error_of_fault(Fault fault) {
  switch (fault) {
    case Fault::kBusy:
    case Fault::kTooMany:
    case Fault::kBroken:
    case Fault::kBadGateway:
      return Errc::kAgain;
    case Fault::kStall:
    case Fault::kStallAnswer:
    case Fault::kStallMidAnswer:
      return Errc::kTimedOut;
    default:
      return Errc::kIo;
  }
}

TEST_F(S3Faults, AreReportedAsWhatTheyAre) {
  S3Store& store = behind_proxy();
  for (const Fault fault : kAllFaults) {
    ASSERT_TRUE(put(*direct_, "there", std::string(5000, 't')).has_value());
    ASSERT_TRUE(put(*direct_, "gone", "g").has_value());
    ASSERT_TRUE(run(direct_->remove("new", {})).has_value());
    for (const Error& error : errors_of_all(store, fault)) {
      EXPECT_TRUE(error.is(error_of_fault(fault)))
          << static_cast<int>(fault) << ": " << error.message();
      EXPECT_TRUE(is_transient(error));
      EXPECT_NE(error.context().find("s3://"), std::string::npos) << error.message();
    }
    // What was done is done, though its answer was lost.
    EXPECT_EQ(run(direct_->head("new", {})).has_value(), has_effect(fault));
    EXPECT_EQ(run(direct_->head("gone", {})).has_value(), !has_effect(fault));
    EXPECT_EQ(read(store, "there"), std::string(5000, 't'));
  }
}

TEST_F(S3CephFaults, NeverMakeAConditionalPutLookRefused) {
  S3Store& store = behind_proxy();
  for (const Fault fault : kAllFaults) {
    const std::string name = "c" + std::to_string(static_cast<int>(fault));
    next_ = fault;
    const Result<std::string> created = put(store, name, "mine", Condition::absent());
    expect_error(created, error_of_fault(fault));
    const Result<ObjectInfo> there = run(direct_->head(name, {}));
    EXPECT_EQ(there.has_value(), has_effect(fault));
    const Result<std::string> tag = put(*direct_, name, "old");
    ASSERT_TRUE(tag.has_value());
    next_ = fault;
    expect_error(put(store, name, "new", Condition::matches(*tag)), error_of_fault(fault));
    EXPECT_EQ(read(*direct_, name), has_effect(fault) ? "new" : "old");
    // From here on the form of tags is known.
    EXPECT_TRUE(put(store, name, "learn", Condition::matches(run(direct_->head(name, {}))->tag))
                    .has_value());
  }
}

struct Model {
  std::map<std::string, std::string> objects;
  unsigned wrong = 0;
  unsigned failed = 0;
};

Task<void> random_get(ObjectStore& store, std::string name, uint64_t offset, Model& model) {
  const CallLimits limits;
  const Result<Fetched> got = co_await store.get(name, Part::range(offset, 10'000), limits);
  const auto known = model.objects.find(name);
  if (!got) {
    const bool missing = got.error().is(Errc::kNotFound);
    if (!missing) ++model.failed;
    if (missing && known != model.objects.end()) ++model.wrong;
  } else if (known == model.objects.end()) {
    ++model.wrong;
  } else {
    const std::string& whole = known->second;
    const std::string wanted = whole.substr(std::min<size_t>(offset, whole.size()), 10'000);
    if (text_of(got->data) != wanted || got->object_size != whole.size()) ++model.wrong;
  }
}

/// One random call, checked against the model.
Task<void> random_call(ObjectStore& store, SeededRng& rng, Model& model) {
  const CallLimits limits;
  const Condition always;
  const std::string name = "r/" + std::to_string(rng.below(8));
  const uint64_t what = rng.below(10);
  if (what < 4) {
    std::string data(rng.below(40'000), static_cast<char>('a' + rng.below(26)));
    const Result<std::string> stored = co_await store.put(name, bytes_of(data), always, limits);
    model.failed += stored.has_value() ? 0U : 1U;
    model.objects[name] = std::move(data);
  } else if (what < 5) {
    const Result<void> removed = co_await store.remove(name, limits);
    model.failed += removed.has_value() ? 0U : 1U;
    model.objects.erase(name);
  } else if (what < 6) {
    const Result<ListPage> page = co_await store.list("r/", "", 100, limits);
    model.failed += page.has_value() ? 0U : 1U;
    if (page && page->objects.size() != model.objects.size()) ++model.wrong;
  } else {
    co_await random_get(store, name, rng.below(30'000), model);
  }
}

Task<Model> many_calls(ObjectStore& store, unsigned count) {
  SeededRng rng(11);
  Model model;
  for (unsigned i = 0; i < count; ++i) co_await random_call(store, rng, model);
  co_return model;
}

TEST_F(S3CephFaults, AreRiddenOutByRetries) {
  SystemRng rng;
  S3Store::Options with = options();
  with.keys["endpoint"] = proxy_->url();
  with.http.stall = milliseconds(300);
  Result<std::unique_ptr<S3Store>> store = bucket_->open(with);
  ASSERT_TRUE(store.has_value()) << store.error().message();
  RetryingStore retrying(*std::move(store), {.backoff_min = milliseconds(1)}, rng);
  random_ = true;
  const Model model = run(many_calls(retrying, 600));
  random_ = false;
  EXPECT_EQ(model.wrong, 0U);
  EXPECT_EQ(model.failed, 0U);
  EXPECT_GT(injected_.load(), 30);
  RecordProperty("faults", injected_.load());
  std::printf("600 calls, %d faults, %llu retries, seeds 7 and 11\n", injected_.load(),
              static_cast<unsigned long long>(retrying.retries()));
  run(retrying.close());
}

}  // namespace
}  // namespace usbd::objects::testing
