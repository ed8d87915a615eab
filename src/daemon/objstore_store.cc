// SPDX-License-Identifier: Apache-2.0
//
// Kinds of stores by name; another kind is another line in the table.

#include "daemon/objstore_store.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "objects/local/local_store.h"
#include "objects/probe.h"
#include "objects/s3/s3_store.h"

namespace usbd::daemon {
namespace {

using StorePointer = std::unique_ptr<objects::ObjectStore>;

/// What every kind is opened with.
struct StorePlace {
  StoreConfig config;
  std::string container;
  bool create = true;
  bool read_only = false;
};

Task<Result<StorePointer>> open_local(StorePlace place, WorkerPool& pool, Rng& rng) {
  objects::LocalStore::Options options{.path = place.config.find("path")->second,
                                       .container = std::move(place.container),
                                       .create = place.create,
                                       .read_only = place.read_only};
  USBD_CO_TRY(StorePointer store,
              co_await objects::LocalStore::open(std::move(options), pool, rng));
  co_return store;
}

Task<Result<StorePointer>> open_s3(StorePlace place, WorkerPool& pool, Rng& rng) {
  static_cast<void>(rng);
  objects::S3Store::Options options{.keys = std::move(place.config),
                                    .container = std::move(place.container),
                                    .create = place.create,
                                    .read_only = place.read_only};
  USBD_CO_TRY(StorePointer store, co_await objects::S3Store::open(std::move(options), pool));
  co_return store;
}

struct Kind {
  std::string_view name;
  Task<Result<StorePointer>> (*open)(StorePlace, WorkerPool&, Rng&);
};
constexpr std::array<Kind, 2> kKinds = {{{"s3", open_s3}, {"local", open_local}}};

StoreConfig minio_config() {
  return {{"access_key_id", "minioadmin"},
          {"endpoint", "http://127.0.0.1:9000"},
          {"secret_key", "minioadmin"}};
}

}  // namespace

Result<StoreConfig> store_config_of(const ObjstoreSettings& settings) {
  if (settings.cfg.empty() && settings.kind == "s3") return minio_config();
  Result<StoreConfig> config =
      settings.cfg.empty() ? Result<StoreConfig>(StoreConfig()) : read_store_config(settings.cfg);
  const Result<void> good =
      config ? check_store_keys(settings.kind, *config) : Result<void>(config.error());
  if (good) return config;
  return Error(Errc::kInvalid, "-objstore-cfg: " + good.error().message());
}

Task<Result<StorePointer>> open_store(VolumeSettings settings, WorkerPool& pool, Rng& rng,
                                      objects::RetryOptions retries) {
  const std::string kind = settings.objstore.kind;
  const auto* const found = std::ranges::find(kKinds, kind, &Kind::name);
  if (found == kKinds.end()) {
    co_return Error(
        Errc::kNotSupported,
        fmt::format("-objstore-kind={}: this build has no store of that kind yet; it has s3 and "
                    "local",
                    kind));
  }
  StorePlace place;
  USBD_CO_TRY(place.config, store_config_of(settings.objstore));
  place.container =
      settings.objstore.container.empty() ? settings.name : settings.objstore.container;
  place.create = settings.create != VolumeSettings::Create::kNever;
  place.read_only = settings.read_only;
  // Fewer attempts than a volume that is open makes: an address that is wrong shall be said soon.
  objects::RetryOptions opening = retries;
  opening.attempts_max = std::min(retries.attempts_max, limits::kStoreOpenAttempts);
  objects::Retrying retrying(opening, rng, {.timeout = limits::kStoreOpenTime});
  Result<StorePointer> store = co_await found->open(place, pool, rng);
  while (!store) {
    const std::optional<Error> last = co_await retrying.failed(store.error());
    if (last) co_return *last;
    store = co_await found->open(place, pool, rng);
  }
  co_return std::make_unique<objects::RetryingStore>(*std::move(store), retries, rng);
}

Task<Result<bool>> check_store(objects::ObjectStore& store, std::string prefix, Rng& rng,
                               bool fencing) {
  const objects::CallLimits limits{.timeout = limits::kStoreOpenTime};
  USBD_CO_TRY(const objects::ProbeReport report,
              co_await objects::probe(store, std::move(prefix), rng, limits));
  const bool compares = report.put_if_absent && report.put_if_matches;
  if (!report.usable()) {
    co_return Error(Errc::kNotSupported,
                    fmt::format("{}: no volume can be kept there; what was tried:\n{}",
                                store.name(), report.text()));
  }
  if (!compares && fencing) {
    co_return Error(
        Errc::kNotSupported,
        fmt::format("{}: this store does not keep two daemons from writing one volume, since it "
                    "does not compare before it replaces an object. If no second daemon ever "
                    "opens this volume for writing, give -objstore-fencing=none; what was "
                    "tried:\n{}",
                    store.name(), report.text()));
  }
  if (!compares) {
    log::warning(
        "{}: THIS STORE DOES NOT FENCE. Should a second daemon open this volume for writing, on "
        "any host, neither will notice, and the volume will be destroyed (-objstore-fencing=none)",
        store.name());
  }
  co_return compares;
}

}  // namespace usbd::daemon
