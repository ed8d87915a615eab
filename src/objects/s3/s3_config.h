// SPDX-License-Identifier: Apache-2.0
//
// How an S3 store is reached: the keys of `-objstore-cfg` checked and made into addresses.

#pragma once

#include <map>
#include <string>
#include <string_view>

#include "usbd/result.h"

namespace usbd::objects {

/// Keys and values as the user gave them.
using StoreKeys = std::map<std::string, std::string, std::less<>>;

namespace s3 {

struct S3Config {
  bool tls = true;
  /// Host, and port if one was given.
  std::string authority;
  std::string region;
  bool path_style = false;
  std::string ca_file;
  /// Credentials come from the instance's metadata service.
  bool instance_credentials = false;
  /// Empty: from the environment or the credentials file.
  std::string key_id;
  std::string secret;
  std::string token;
};

/// Reads the keys `access_key_id`, `secret_key`, `token`, `auth_type`, `region`, `endpoint`,
/// `disable_ssl`, `path_style`, `ca_file`, `v2_signing`.
/// Errors: kInvalid: names the key, what was given (never a secret's) and what may be.
Result<S3Config> read_config(const StoreKeys& keys);

/// Where the requests of a bucket go.
struct BucketAddress {
  /// "https://host:port", in which the host names the bucket unless the path does.
  std::string origin;
  /// The value of the header Host.
  std::string host;
  /// Before an object's name; ends with a slash.
  std::string path;
};

/// A bucket whose name has dots is named by the path where a certificate is to be checked: it
/// would not hold for a host name of so many parts.
/// Errors: kInvalid: not a name that a bucket can have.
Result<BucketAddress> address_of(const S3Config& config, std::string_view bucket);

}  // namespace s3
}  // namespace usbd::objects
