// SPDX-License-Identifier: Apache-2.0
//
// Two tables: what a code in the document means goes before what the status means.

#include "objects/s3/s3_errors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include <fmt/format.h>

namespace usbd::objects::s3 {
namespace {

struct Meaning {
  std::string_view code;
  Errc errc;
  /// Empty: what the server says, or the code, is all that is known.
  std::string_view sentence = {};
};

constexpr std::array kMeanings{
    Meaning{"NoSuchBucket", Errc::kNotFound, "there is no such bucket"},
    Meaning{"NoSuchKey", Errc::kNotFound, "there is no such object"},
    Meaning{"SignatureDoesNotMatch", Errc::kAccess,
            "the secret key is not the one that belongs to the access key"},
    Meaning{"InvalidAccessKeyId", Errc::kAccess, "the store does not know this access key"},
    Meaning{"AccessDenied", Errc::kAccess,
            "the credentials lack this right, or the bucket belongs to somebody else"},
    Meaning{"AllAccessDisabled", Errc::kAccess},
    Meaning{"AccountProblem", Errc::kAccess},
    Meaning{"ExpiredToken", Errc::kAccess, "the session token has expired; get new credentials"},
    Meaning{"TokenRefreshRequired", Errc::kAccess, "the session token must be renewed"},
    Meaning{"InvalidToken", Errc::kAccess, "the session token is wrong"},
    Meaning{"AuthorizationHeaderMalformed", Errc::kInvalid},
    Meaning{"PermanentRedirect", Errc::kInvalid},
    Meaning{"IllegalLocationConstraintException", Errc::kInvalid},
    Meaning{"TemporaryRedirect", Errc::kAgain, "the bucket is new or moving; later it is found"},
    Meaning{"QuotaExceeded", Errc::kNoSpace, "a quota is used up"},
    Meaning{"InsufficientStorage", Errc::kNoSpace, "the store is full"},
    Meaning{"XMinioStorageFull", Errc::kNoSpace, "the store is full"},
    Meaning{"RequestTimeout", Errc::kAgain, "the store did not get the request in time"},
    Meaning{"SlowDown", Errc::kAgain, "the store asks for fewer requests"},
    Meaning{"ConditionalRequestConflict", Errc::kAgain,
            "another change of the same object was under way"},
    Meaning{"OperationAborted", Errc::kAgain, "another change was under way"},
    // What arrived is not what was sent.
    Meaning{"BadDigest", Errc::kIo, "the data changed on its way"},
    Meaning{"XAmzContentSHA256Mismatch", Errc::kIo, "the data changed on its way"},
    Meaning{"IncompleteBody", Errc::kIo, "the data was cut on its way"},
};

Errc errc_of(int status) {
  switch (status) {
    case 401:
    case 403:
    case 407:
      return Errc::kAccess;
    case 404:
      return Errc::kNotFound;
    case 408:
    case 409:
    case 425:
    case 429:
      return Errc::kAgain;
    case 412:
      return Errc::kExists;
    case 405:
    case 501:
      return Errc::kNotSupported;
    case 507:
      return Errc::kNoSpace;
    default:
      break;
  }
  if (status >= 500 && status < 600) return Errc::kAgain;
  // Redirects are not followed: where they lead is for people to decide.
  return status >= 300 && status < 500 ? Errc::kInvalid : Errc::kIo;
}

const Meaning* meaning_of(std::string_view code) {
  const auto* const at = std::ranges::find(kMeanings, code, &Meaning::code);
  return at == kMeanings.end() ? nullptr : at;
}

/// About the region that a bucket is in, if the answer speaks of one.
std::optional<std::string> region_sentence(const HttpResponse& response,
                                           const ErrorAnswer& answer) {
  const std::string* const header = response.find("x-amz-bucket-region");
  const std::string region =
      answer.region.empty() && header != nullptr ? printable(*header) : answer.region;
  const bool redirect = response.status / 100 == 3;
  if (!redirect && answer.code != "AuthorizationHeaderMalformed") return std::nullopt;
  if (!region.empty()) {
    return fmt::format("the bucket is in region {}: set `region` (and `endpoint`, if given) to it",
                       region);
  }
  return redirect ? "the store sends this bucket's requests elsewhere: set `region` and `endpoint`"
                  : std::optional<std::string>();
}

std::string sentence_of(const HttpResponse& response, const ErrorAnswer& answer) {
  if (answer.code != "TemporaryRedirect") {
    if (auto sentence = region_sentence(response, answer)) return *sentence;
  }
  if (answer.code == "RequestTimeTooSkewed") {
    const std::string* const date = response.find("date");
    return fmt::format("the clock of this host is too far from the store's (which says {}): set it",
                       date != nullptr ? printable(*date) : "nothing");
  }
  const Meaning* const meaning = meaning_of(answer.code);
  if (meaning != nullptr && !meaning->sentence.empty()) return std::string(meaning->sentence);
  if (!answer.message.empty()) return answer.message;
  return "the store refuses it";
}

}  // namespace

Error error_of(const HttpResponse& response, std::string_view what) {
  const ErrorAnswer answer = parse_error(response.text());
  const Meaning* const meaning = meaning_of(answer.code);
  const Errc errc = meaning != nullptr ? meaning->errc : errc_of(response.status);
  const std::string code = answer.code.empty() ? "" : " " + answer.code;
  return Error(errc, fmt::format("{}: {} ({}{})", what, sentence_of(response, answer),
                                 response.status, code));
}

bool says_expired(const HttpResponse& response, std::string_view method) {
  if (response.status != 400 && response.status != 401 && response.status != 403) return false;
  // The answer to a HEAD gives no reason.
  if (method == "HEAD") return true;
  constexpr std::array<std::string_view, 4> kCodes{"ExpiredToken", "TokenRefreshRequired",
                                                   "InvalidToken", "InvalidAccessKeyId"};
  return std::ranges::find(kCodes, parse_error(response.text()).code) != kCodes.end();
}

bool says_no_object(const HttpResponse& response) {
  return response.status == 404 && parse_error(response.text()).code != "NoSuchBucket";
}

}  // namespace usbd::objects::s3
