// SPDX-License-Identifier: Apache-2.0
//
// S3Store: the store kind `s3`, a bucket of Amazon S3 or of a server that speaks its protocol.
//
// An object is put by a single request, which S3 takes up to 5 GiB: our objects are of 64 MiB or
// so, where parts in parallel would cost three requests for one and gain nothing, since several
// objects are uploaded at once anyway. So there are no multipart uploads, nor leftovers of them.
//
// Servers differ in the form of a tag that they compare in If-Match: Amazon and others take it in
// quotes, as RFC 9110 has it, Ceph's radosgw only without. Which one a server takes is found out by
// the first conditional put that succeeds; until then a refusal is checked by looking at the
// object. No form is ever tried that could succeed when the tag is another: a stale tag matches in
// neither.
//
// Names in a listing that is_object_name() does not allow are somebody else's and passed over.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/worker_pool.h"
#include "objects/call_clock.h"
#include "objects/http/http_client.h"
#include "objects/object_store.h"
#include "objects/s3/credentials.h"
#include "objects/s3/s3_config.h"

namespace usbd::objects {

class S3Store final : public ObjectStore {
 public:
  struct Options {
    /// As in `-objstore-cfg`.
    StoreKeys keys;
    /// The bucket.
    std::string container;
    /// Makes the bucket if there is none.
    bool create = true;
    /// Puts and removals are kReadOnly, and no bucket is made.
    bool read_only = false;
    HttpClient::Options http = {};
    /// For tests. Empty: the process's, and the system's.
    s3::Environment environment = {};
    s3::WallClock clock = {};
  };

  /// Checks keys and credentials against the server, and makes the bucket if need be.
  /// Lifetime: `pool` outlives the store; it belongs to the loop that this is called on.
  /// Errors:   kInvalid (keys, bucket name, another region); kAccess (credentials missing or
  ///           refused, bucket of somebody else); kNotFound (no bucket, and none is made); or
  ///           what the connection said.
  static Task<Result<std::unique_ptr<S3Store>>> open(Options options, WorkerPool& pool);

  [[nodiscard]] std::string name() const override;
  [[nodiscard]] Abilities abilities() const override {
    return {.put_if_absent = true, .put_if_matches = true};
  }

  /// Errors: also kReadOnly.
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override;
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override;
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override;
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override;
  Task<Result<void>> remove(std::string name, CallLimits limits) override;
  Task<void> close() override;

 private:
  /// A request before it is signed.
  struct Call {
    std::string method;
    /// Empty: the bucket itself.
    std::string object = {};
    s3::NameValues query = {};
    s3::NameValues headers = {};
    Bytes body = {};
    uint64_t response_max = limits::kHttpErrorBodyMax;
  };
  enum class TagForm : uint8_t { kUnknown, kQuoted, kBare };

  S3Store(Options options, WorkerPool& pool, s3::S3Config config, s3::BucketAddress address,
          std::unique_ptr<HttpClient> client);

  /// Sends it, and once more if the credentials had expired and there are newer ones.
  Task<Result<HttpResponse>> send(Call call, const CallClock& clock);
  [[nodiscard]] HttpRequest signed_request(const Call& call, const std::string& payload_hash,
                                           const s3::Credentials& credentials) const;
  Task<std::string> payload_hash(Bytes body);

  // s3_open.cc
  Task<Result<void>> enter_bucket();
  Task<Result<void>> make_bucket(const CallClock& clock);

  // s3_put.cc
  Task<Result<std::string>> put_once(std::string object, Bytes data, s3::NameValues condition,
                                     const CallClock& clock);
  Task<Result<std::string>> put_if_matches(std::string object, Bytes data, std::string tag,
                                           const CallClock& clock);
  Task<Result<std::string>> find_tag_form(std::string object, Bytes data, std::string tag,
                                          const CallClock& clock);
  Task<Result<bool>> tag_differs(std::string object, const std::string& tag,
                                 const CallClock& clock);

  // s3_get.cc
  Task<Result<ObjectInfo>> head_object(std::string object, const CallClock& clock);
  Task<Result<Fetched>> beyond_the_end(std::string object, Part part, const CallClock& clock);
  Result<Fetched> take_part(HttpResponse response, const Part& part, const std::string& object);
  Task<Result<ListPage>> list_page(std::string prefix, std::string after, size_t most,
                                   std::string& token, const CallClock& clock);

  [[nodiscard]] CallClock clock_of(CallLimits call_limits) const;
  [[nodiscard]] std::string label(const Call& call) const;
  [[nodiscard]] std::string label(std::string_view method, std::string_view object) const;

  Options options_;
  WorkerPool& pool_;
  Loop& home_;
  const s3::S3Config config_;
  const s3::BucketAddress address_;
  const std::unique_ptr<HttpClient> client_;
  std::unique_ptr<s3::CredentialKeeper> credentials_;
  TagForm tag_form_ = TagForm::kUnknown;
};

}  // namespace usbd::objects
