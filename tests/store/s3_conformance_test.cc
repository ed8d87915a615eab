// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite for S3Store on a real server (tests/store/s3_served.sh). Swift knows no
// conditional puts; the suite checks that it refuses them.

#include "store/s3_server.h"
#include "store/store_conformance.h"

namespace usbd::objects::testing {
namespace {

/// A store of whose abilities the server lacks those of conditional puts.
class Unconditional final : public ObjectStore {
 public:
  explicit Unconditional(std::unique_ptr<ObjectStore> inner) : inner_(std::move(inner)) {}

  [[nodiscard]] std::string name() const override { return inner_->name(); }
  [[nodiscard]] Abilities abilities() const override { return {}; }
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override {
    return inner_->put(std::move(name), data, std::move(condition), std::move(limits));
  }
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override {
    return inner_->get(std::move(name), part, std::move(limits));
  }
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override {
    return inner_->head(std::move(name), std::move(limits));
  }
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override {
    return inner_->list(std::move(prefix), std::move(after), most, std::move(limits));
  }
  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    return inner_->remove(std::move(name), std::move(limits));
  }
  Task<void> close() override { return inner_->close(); }

 private:
  const std::unique_ptr<ObjectStore> inner_;
};

class OnServer final : public StoreUnderTest {
 public:
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    Result<std::unique_ptr<S3Store>> store =
        co_await S3Store::open(server_options(bucket_.name()), bucket_.loop().pool());
    if (!store) co_return store.error();
    std::unique_ptr<ObjectStore> opened = *std::move(store);
    if (is_swift()) opened = std::make_unique<Unconditional>(std::move(opened));
    co_return std::move(opened);
  }
  void run(Task<void> task) override { bucket_.loop().run(std::move(task)); }

 private:
  Bucket bucket_;
};

/// Swift, in Python, is some ten times slower.
StoreKind server_kind() {
  return {.name = "Server",
          .make = []() -> Result<std::unique_ptr<StoreUnderTest>> {
            if (from_environment("USBD_S3_ENDPOINT").empty()) {
              return Error(Errc::kNotFound, "no server: run this by tests/store/s3_served.sh");
            }
            return std::unique_ptr<StoreUnderTest>(std::make_unique<OnServer>());
          },
          .lists_at_once = !is_swift(),
          // radosgw answers 500 to some of those that lose.
          .racers_may_fail = true,
          .large_bytes = is_swift() ? 8U << 20 : 64U << 20,
          .listed_names = is_swift() ? 1100U : 2500U,
          .load_operations = is_swift() ? 15U : 60U};
}

std::string kind_name(const ::testing::TestParamInfo<StoreKind>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(S3, StoreConformance, ::testing::Values(server_kind()), kind_name);

}  // namespace
}  // namespace usbd::objects::testing
