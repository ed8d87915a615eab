// SPDX-License-Identifier: Apache-2.0
//
// AWS Signature Version 4, the way S3 uses it: the path is percent-encoded once and not normalised.
// Ours and not libcurl's, whose own (7.88) signs unsorted queries and encoded slashes wrongly and
// leaves out the hash of the payload.
//
// The payload: over plain HTTP its SHA-256 is signed, so that nobody on the way can change it
// unnoticed; over TLS, which sees to that itself, it is `UNSIGNED-PAYLOAD`, and saves the time.
//
// Ref: AWS General Reference, "Create a signed AWS API request"; S3 API Reference, "Authenticating
//      Requests (AWS Signature Version 4)".

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "usbd/buffer.h"

namespace usbd::objects::s3 {

inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
/// SHA-256 of nothing.
inline constexpr std::string_view kEmptyPayload =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct SigningKey {
  std::string id;
  std::string secret;
};

struct SigningScope {
  std::string region;
  std::string service = "s3";
  /// Units: seconds since 1970, UTC.
  int64_t time = 0;
};

using NameValues = std::vector<std::pair<std::string, std::string>>;

/// What is signed of a request.
struct SignedParts {
  std::string method;
  /// Not encoded, with its leading slash.
  std::string path;
  /// Not encoded, in any order.
  NameValues query;
  /// All that are to be signed, `host` and `x-amz-date` among them; in any order and case.
  NameValues headers;
  /// SHA-256 in hex, or kUnsignedPayload.
  std::string payload_hash;
};

/// SHA-256 in small hex digits.
std::string sha256_hex(Bytes data);

/// `20150830T123600Z`, for x-amz-date. Range: years 1970 to 9999; others come out as 1970's start.
std::string format_time(int64_t time);

/// The query of a URL, encoded and sorted: `a=1&b=`. Empty if there is none.
std::string canonical_query(const NameValues& query);

/// The value of the header Authorization.
std::string authorization(const SignedParts& parts, const SigningKey& key,
                          const SigningScope& scope);

}  // namespace usbd::objects::s3
