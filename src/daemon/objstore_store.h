// SPDX-License-Identifier: Apache-2.0
//
// The object store that the flags describe: which kind, where, and what it can really do.

#pragma once

#include <memory>
#include <string>

#include "async/worker_pool.h"
#include "base/random.h"
#include "daemon/objstore_flags.h"
#include "daemon/settings.h"
#include "objects/object_store.h"
#include "objects/retrying_store.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::daemon {

/// The keys of `-objstore-cfg`; for kind s3 the keys of a local MinIO if it is not given.
/// Errors: as read_store_config() and check_store_keys(), naming the flag.
Result<StoreConfig> store_config_of(const ObjstoreSettings& settings);

/// Opens the store, with retries in front of it, made as `retries` says.
/// Lifetime: `pool` and `rng` outlive the store.
/// Errors:   kNotSupported: this build lacks the kind; what the store said.
Task<Result<std::unique_ptr<objects::ObjectStore>>> open_store(VolumeSettings settings,
                                                               WorkerPool& pool, Rng& rng,
                                                               objects::RetryOptions retries = {});

/// Tries what the store does with conditions and parts, below `prefix`, and says in the log what is
/// wrong with it. Returns whether it compares before it swaps.
/// Errors: kNotSupported: no volume can live there, or it does not compare and `fencing` is asked
///         for; what the store said.
Task<Result<bool>> check_store(objects::ObjectStore& store, std::string prefix, Rng& rng,
                               bool fencing);

}  // namespace usbd::daemon
