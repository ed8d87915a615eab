// SPDX-License-Identifier: Apache-2.0
//
// Gets, heads and listings. An answer is believed only as far as it agrees with the request.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "objects/part_range.h"
#include "objects/s3/s3_answers.h"
#include "objects/s3/s3_errors.h"
#include "objects/s3/s3_store.h"

namespace usbd::objects {
namespace {

/// The value of the header Range; empty for all of an object.
std::string range_header(const Part& part) {
  switch (part.kind) {
    case Part::Kind::kRange: {
      USBD_ASSERT(part.length > 0);
      const uint64_t last = part.offset + std::min(part.length - 1, UINT64_MAX - part.offset);
      return fmt::format("bytes={}-{}", part.offset, last);
    }
    case Part::Kind::kTail:
      USBD_ASSERT(part.length > 0);
      return fmt::format("bytes=-{}", part.length);
    case Part::Kind::kWhole:
      break;
  }
  return {};
}

std::string tag_of(const HttpResponse& response) {
  const std::string* const tag = response.find("etag");
  return tag != nullptr ? s3::bare_tag(*tag) : std::string();
}

/// Whether curl could tell that the body is whole.
bool has_framing(const HttpResponse& response) {
  return response.find("content-length") != nullptr ||
         response.find("transfer-encoding") != nullptr;
}

/// Keeps `range` of `data`.
void cut(std::vector<std::byte>& data, const ByteRange& range) {
  data.resize(range.end());
  data.erase(data.begin(), data.begin() + static_cast<ptrdiff_t>(range.offset));
}

/// The objects of a page that usbd may use.
/// Errors: kIo: not what was asked for, or not in order.
Result<ListPage> check_page(s3::ListAnswer answer, const std::string& prefix,
                            const std::string& after, const std::string& what) {
  ListPage page{.objects = {}, .more = answer.truncated};
  const std::string* last = &after;
  for (ObjectInfo& object : answer.objects) {
    if (!object.name.starts_with(prefix) || object.name <= *last) {
      return Error(Errc::kIo, what +
                                  ": a listing of other names than were asked for, or not in "
                                  "the order of their bytes");
    }
    last = &object.name;
  }
  for (ObjectInfo& object : answer.objects) {
    if (is_object_name(object.name)) page.objects.push_back(std::move(object));
  }
  return page;
}

}  // namespace

Result<Fetched> S3Store::take_part(HttpResponse response, const Part& part,
                                   const std::string& object) {
  const std::string what = label("GET", object);
  Fetched fetched{.data = std::move(response.body), .object_size = 0, .tag = tag_of(response)};
  if (fetched.tag.empty()) return Error(Errc::kIo, what + ": an answer without an ETag");
  if (response.status == 200) {  // all of it, though perhaps a part was asked for
    if (!has_framing(response)) return Error(Errc::kIo, what + ": an answer without a length");
    fetched.object_size = fetched.data.size();
    USBD_TRY(const ByteRange range, range_of(part, fetched.object_size));
    cut(fetched.data, range);
    return fetched;
  }
  const std::string* const header = response.find("content-range");
  const auto got = header != nullptr ? s3::parse_content_range(*header) : std::nullopt;
  if (!got.has_value() || part.kind == Part::Kind::kWhole) {
    return Error(Errc::kIo, what + ": a part without a range that makes sense");
  }
  USBD_TRY(const ByteRange wanted, range_of(part, got->total));
  if (got->first != wanted.offset || got->last + 1 != wanted.end()) {
    return Error(Errc::kIo,
                 fmt::format("{}: the wrong range: bytes {} to {} instead of {} to {}", what,
                             got->first, got->last, wanted.offset, wanted.end() - 1));
  }
  if (fetched.data.size() != wanted.length) {
    return Error(Errc::kIo, fmt::format("{}: {} bytes instead of the {} announced", what,
                                        fetched.data.size(), wanted.length));
  }
  fetched.object_size = got->total;
  return fetched;
}

Task<Result<Fetched>> S3Store::get(std::string name, Part part, CallLimits limits) {
  const CallClock clock = clock_of(std::move(limits));
  Call call{.method = "GET", .object = name, .response_max = part.length};
  if (std::string range = range_header(part); !range.empty()) {
    call.headers.emplace_back("Range", std::move(range));
  }
  Result<HttpResponse> response = co_await send(std::move(call), clock);
  if (!response) {
    const Error& error = response.error();
    if (!error.is(Errc::kOverflow) || part.kind == Part::Kind::kWhole) co_return error;
    co_return Error(Errc::kIo, error.context() + ": more than the range that was asked for");
  }
  if (response->status == 416) co_return co_await beyond_the_end(name, part, clock);
  if (response->status != 200 && response->status != 206) {
    co_return s3::error_of(*response, label("GET", name));
  }
  co_return take_part(*std::move(response), part, name);
}

/// The store says that the range begins where the object has ended: it says nothing of its tag, and
/// not always its size.
Task<Result<Fetched>> S3Store::beyond_the_end(std::string object, Part part,
                                              const CallClock& clock) {
  const std::string what = label("GET", object);
  USBD_CO_TRY(ObjectInfo info, co_await head_object(std::move(object), clock));
  USBD_CO_TRY(const ByteRange range, range_of(part, info.size));
  if (!range.empty()) {
    co_return Error(Errc::kAgain, what + ": the object was changed while it was read");
  }
  co_return Fetched{.data = {}, .object_size = info.size, .tag = std::move(info.tag)};
}

Task<Result<ObjectInfo>> S3Store::head(std::string name, CallLimits limits) {
  const CallClock clock = clock_of(std::move(limits));
  co_return co_await head_object(std::move(name), clock);
}

Task<Result<ObjectInfo>> S3Store::head_object(std::string object, const CallClock& clock) {
  Call call{.method = "HEAD", .object = object};
  const std::string what = label(call);
  USBD_CO_TRY(const HttpResponse response, co_await send(std::move(call), clock));
  if (response.status != 200) co_return s3::error_of(response, what);
  const std::string* const length = response.find("content-length");
  const auto size = length != nullptr ? s3::parse_number(*length) : std::nullopt;
  std::string tag = tag_of(response);
  if (!size.has_value() || tag.empty()) {
    co_return Error(Errc::kIo, what + ": an answer without a length or an ETag");
  }
  co_return ObjectInfo{.name = std::move(object), .size = *size, .tag = std::move(tag)};
}

Task<Result<ListPage>> S3Store::list(std::string prefix, std::string after, size_t most,
                                     CallLimits limits) {
  USBD_ASSERT(most > 0 && most <= kListPageMax);
  const CallClock clock = clock_of(std::move(limits));
  std::string token;
  // A page without a name that the caller could go on from is no use to it.
  for (unsigned pages = 0; pages < limits::kS3EmptyPagesMax; ++pages) {
    USBD_CO_TRY(ListPage page, co_await list_page(prefix, after, most, token, clock));
    if (!page.objects.empty() || !page.more) co_return page;
    if (token.empty()) {
      co_return Error(Errc::kIo, label("GET", "") +
                                     ": a listing that says that there is more, and "
                                     "not where");
    }
  }
  co_return Error(Errc::kIo, label("GET", "") + ": a listing without end and without names");
}

Task<Result<ListPage>> S3Store::list_page(std::string prefix, std::string after, size_t most,
                                          std::string& token, const CallClock& clock) {
  Call call{.method = "GET",
            .query = {{"list-type", "2"}, {"encoding-type", "url"}, {"prefix", prefix}},
            .response_max = limits::kS3ListBytesMax};
  call.query.emplace_back("max-keys", std::to_string(most));
  if (!token.empty()) {
    call.query.emplace_back("continuation-token", token);
  } else if (!after.empty()) {
    call.query.emplace_back("start-after", after);
  }
  const std::string what = label("LIST", prefix);
  Result<HttpResponse> response = co_await send(std::move(call), clock);
  if (!response) {
    if (!response.error().is(Errc::kOverflow)) co_return std::move(response).error();
    co_return Error(Errc::kIo, response.error().context());
  }
  if (response->status != 200) {
    const Error error = s3::error_of(*response, what);
    co_return error;
  }
  Result<s3::ListAnswer> answer = s3::parse_list(response->text());
  if (!answer) co_return Error(Errc::kIo, what + ": " + answer.error().context());
  if (answer->objects.size() > most) {
    co_return Error(Errc::kIo, what + ": a listing of more than was asked for");
  }
  token = answer->next_token;
  co_return check_page(*std::move(answer), prefix, after, what);
}

}  // namespace usbd::objects
