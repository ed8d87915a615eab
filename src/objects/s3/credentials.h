// SPDX-License-Identifier: Apache-2.0
//
// Where credentials for S3 come from: the configuration, the environment, the credentials file that
// Amazon's tools share, or the metadata service of an instance. Those that can change are read
// again when they are about to expire, or when the store says that they have.

#pragma once

#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/worker_pool.h"
#include "objects/http/http_client.h"
#include "objects/s3/s3_config.h"
#include "objects/s3/sigv4.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objects::s3 {

/// The value of an environment variable; empty if it is not set.
using Environment = std::function<std::string(const char* name)>;
/// Seconds since 1970, UTC: signatures carry the time of day.
using WallClock = std::function<int64_t()>;

struct Credentials {
  SigningKey key;
  /// Empty: none.
  std::string token;
  /// Units: as WallClock.
  std::optional<int64_t> expires;
};

/// Reads credentials anew.
class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  /// Errors: kAccess: there are none; or what kept them from being read.
  virtual Task<Result<Credentials>> read() = 0;
  /// Whether another read may give others.
  [[nodiscard]] virtual bool can_change() const = 0;
};

/// The keys of a profile in the text of a credentials file; what stands outside of it does not
/// matter. None: no such profile, or without both keys.
std::optional<Credentials> parse_credentials_file(std::string_view text, std::string_view profile);

/// What the metadata service says of a role.
/// Errors: kIo: not what it should be. Never shows any of it.
Result<Credentials> parse_instance_credentials(std::string_view json);

/// The source that `config` and the environment mean.
/// Lifetime: `client` and `pool` outlive the source.
/// Errors:   kAccess: no credentials anywhere; says where they were looked for.
Result<std::unique_ptr<CredentialSource>> find_credentials(const S3Config& config,
                                                           const Environment& environment,
                                                           HttpClient& client, WorkerPool& pool);

/// The credentials that are good now. Threads: one loop's.
class CredentialKeeper {
 public:
  CredentialKeeper(std::unique_ptr<CredentialSource> source, WallClock clock)
      : source_(std::move(source)), clock_(std::move(clock)) {}

  /// Reads them if there are none yet, or they expire soon; one read for all who wait. If reading
  /// fails while the old ones still hold, those are given out.
  Task<Result<Credentials>> get();
  /// The store refused `refused`: true if others can be had now.
  Task<bool> replace(SigningKey refused, std::string token);

 private:
  struct TurnAwaiter;
  [[nodiscard]] bool are_fresh() const;
  Task<Result<void>> read_again();

  const std::unique_ptr<CredentialSource> source_;
  const WallClock clock_;
  std::optional<Credentials> current_;
  bool reading_ = false;
  std::vector<ResumeWork*> waiting_;
  /// Of the last read.
  std::optional<Error> failure_;
  int64_t failed_at_ = 0;
};

}  // namespace usbd::objects::s3
