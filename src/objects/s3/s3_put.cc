// SPDX-License-Identifier: Apache-2.0
//
// Puts, with the conditions as servers take them (see s3_store.h about tags).

#include <utility>

#include <fmt/format.h>

#include "objects/s3/s3_answers.h"
#include "objects/s3/s3_errors.h"
#include "objects/s3/s3_store.h"

namespace usbd::objects {
namespace {

constexpr uint64_t kPutMax = 5ULL << 30;

std::string quoted(const std::string& tag) {
  return "\"" + tag + "\"";
}

}  // namespace

Task<Result<std::string>> S3Store::put(std::string name, Bytes data, Condition condition,
                                       CallLimits limits) {
  const CallClock clock = clock_of(std::move(limits));
  if (options_.read_only) co_return Error(Errc::kReadOnly, label("PUT", name));
  if (data.size() > kPutMax) {
    co_return Error(Errc::kInvalid, fmt::format("{}: {} bytes; a put takes at most 5 GiB",
                                                label("PUT", name), data.size()));
  }
  s3::NameValues headers;
  switch (condition.kind) {
    case Condition::Kind::kAlways:
      break;
    case Condition::Kind::kAbsent:
      headers.emplace_back("If-None-Match", "*");
      break;
    case Condition::Kind::kMatches:
      co_return co_await put_if_matches(std::move(name), data, std::move(condition.tag), clock);
  }
  co_return co_await put_once(std::move(name), data, std::move(headers), clock);
}

Task<Result<std::string>> S3Store::put_once(std::string object, Bytes data,
                                            s3::NameValues condition, const CallClock& clock) {
  const bool matching = !condition.empty() && condition[0].first == "If-Match";
  Call call{
      .method = "PUT", .object = std::move(object), .headers = std::move(condition), .body = data};
  const std::string what = label(call);
  USBD_CO_TRY(const HttpResponse response, co_await send(std::move(call), clock));
  if (response.status == 200 || response.status == 201) {
    const std::string* const tag = response.find("etag");
    if (tag != nullptr && !s3::bare_tag(*tag).empty()) co_return s3::bare_tag(*tag);
    co_return Error(Errc::kIo, what + ": stored, but the store does not say under which ETag");
  }
  if (matching && s3::says_no_object(response)) {
    co_return Error(Errc::kExists, what + ": the object is gone (404)");
  }
  co_return s3::error_of(response, what);
}

Task<Result<std::string>> S3Store::put_if_matches(std::string object, Bytes data, std::string tag,
                                                  const CallClock& clock) {
  if (tag_form_ == TagForm::kUnknown) {
    co_return co_await find_tag_form(std::move(object), data, std::move(tag), clock);
  }
  s3::NameValues condition{{"If-Match", tag_form_ == TagForm::kBare ? tag : quoted(tag)}};
  co_return co_await put_once(std::move(object), data, std::move(condition), clock);
}

/// Tries both forms. A refusal counts only once the object is seen to have another tag; a success
/// is one in either form, and tells which.
Task<Result<std::string>> S3Store::find_tag_form(std::string object, Bytes data, std::string tag,
                                                 const CallClock& clock) {
  for (unsigned round = 0; round < limits::kS3TagRounds; ++round) {
    for (const TagForm form : {TagForm::kQuoted, TagForm::kBare}) {
      s3::NameValues condition{{"If-Match", form == TagForm::kBare ? tag : quoted(tag)}};
      Result<std::string> stored = co_await put_once(object, data, std::move(condition), clock);
      // Another call may have found the form meanwhile, which then is the same.
      if (stored) tag_form_ = form;
      if (stored || !stored.error().is(Errc::kExists)) co_return stored;
      USBD_CO_TRY(const bool differs, co_await tag_differs(object, tag, clock));
      if (differs) co_return stored;
    }
  }
  co_return Error(Errc::kNotSupported,
                  label("PUT", object) +
                      ": the store refuses If-Match with the object's own tag, with and without "
                      "quotes");
}

Task<Result<bool>> S3Store::tag_differs(std::string object, const std::string& tag,
                                        const CallClock& clock) {
  const Result<ObjectInfo> info = co_await head_object(std::move(object), clock);
  if (info) co_return info->tag != tag;
  if (info.error().is(Errc::kNotFound)) co_return true;
  co_return info.error();
}

}  // namespace usbd::objects
