// SPDX-License-Identifier: Apache-2.0
//
// Checks of the keys, one by one; messages name what is wrong and what is right.

#include "objects/s3/s3_config.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

namespace usbd::objects::s3 {
namespace {

constexpr std::array<std::string_view, 10> kKeys{
    "access_key_id", "auth_type", "ca_file",    "disable_ssl", "endpoint",
    "path_style",    "region",    "secret_key", "token",       "v2_signing"};

template <typename... Args>
Error invalid(fmt::format_string<Args...> format, Args&&... args) {
  return Error(Errc::kInvalid, fmt::format(format, std::forward<Args>(args)...));
}

std::string value_of(const StoreKeys& keys, std::string_view key) {
  const auto at = keys.find(key);
  return at == keys.end() ? std::string() : at->second;
}

/// None: not given.
Result<std::optional<bool>> flag_of(const StoreKeys& keys, std::string_view key) {
  const std::string value = value_of(keys, key);
  if (value.empty()) return std::optional<bool>();
  if (value == "true" || value == "1") return std::optional(true);
  if (value == "false" || value == "0") return std::optional(false);
  return invalid("{} is \"{}\"; it can be true or false", key, value);
}

bool all_of(std::string_view text, std::string_view allowed) {
  return std::ranges::all_of(text, [&](char c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || (c >= '0' && c <= '9') || allowed.find(c) != std::string_view::npos;
  });
}

Result<void> check_keys(const StoreKeys& keys) {
  for (const auto& [key, value] : keys) {
    if (std::ranges::find(kKeys, key) == kKeys.end()) {
      return invalid("an s3 store has no key \"{}\"; it has {}", key, fmt::join(kKeys, ", "));
    }
    // Values end up in headers.
    if (std::ranges::any_of(value, [](unsigned char c) { return c < 0x20 || c == 0x7F; })) {
      return invalid("{} holds a control character", key);
    }
  }
  return {};
}

Result<void> read_credentials(const StoreKeys& keys, S3Config& config) {
  config.key_id = value_of(keys, "access_key_id");
  config.secret = value_of(keys, "secret_key");
  config.token = value_of(keys, "token");
  const std::string type = value_of(keys, "auth_type");
  if (!type.empty() && type != "accesskey" && type != "iam") {
    return invalid("auth_type is \"{}\"; it can be accesskey or iam", type);
  }
  config.instance_credentials = type == "iam";
  const bool any = !config.key_id.empty() || !config.secret.empty() || !config.token.empty();
  if (config.instance_credentials && any) {
    return invalid("auth_type is iam, which takes no access_key_id, secret_key or token");
  }
  if (config.key_id.empty() != config.secret.empty()) {
    return invalid("access_key_id and secret_key go together; only {} is given",
                   config.key_id.empty() ? "secret_key" : "access_key_id");
  }
  if (!config.token.empty() && config.key_id.empty()) {
    return invalid("token needs access_key_id and secret_key");
  }
  return {};
}

Result<void> read_endpoint(const StoreKeys& keys, S3Config& config) {
  const std::string given = value_of(keys, "endpoint");
  std::string_view rest = given;
  USBD_TRY(const std::optional<bool> no_tls, flag_of(keys, "disable_ssl"));
  config.tls = !no_tls.value_or(false);
  for (const auto& [scheme, tls] : {std::pair(std::string_view("http://"), false),
                                    std::pair(std::string_view("https://"), true)}) {
    if (!rest.starts_with(scheme)) continue;
    if (no_tls.has_value() && *no_tls == tls) {
      return invalid("endpoint begins with {} but disable_ssl is {}", scheme, *no_tls);
    }
    config.tls = tls;
    rest.remove_prefix(scheme.size());
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (given.empty()) {
    const char* const suffix = config.region.starts_with("cn-") ? ".cn" : "";
    config.authority = fmt::format("s3.{}.amazonaws.com{}", config.region, suffix);
    return {};
  }
  // Not shown: a user and password before an @ would be.
  if (rest.empty() || !all_of(rest, ".-_:[]")) {
    return invalid(
        "endpoint is not a host and port: it can be like http://127.0.0.1:9000 or "
        "https://s3.example.com, without a path or a user");
  }
  config.authority = rest;
  return {};
}

}  // namespace

Result<S3Config> read_config(const StoreKeys& keys) {
  USBD_TRY_VOID(check_keys(keys));
  USBD_TRY(const std::optional<bool> v2, flag_of(keys, "v2_signing"));
  if (v2.value_or(false)) {
    return invalid("v2_signing is true; requests are signed by version 4 only");
  }
  S3Config config;
  config.region = value_of(keys, "region");
  if (config.region.empty()) config.region = "us-east-1";
  if (!all_of(config.region, "._-") || config.region.size() > 64) {
    return invalid("region is \"{}\", which is not the name of one", config.region);
  }
  USBD_TRY_VOID(read_credentials(keys, config));
  USBD_TRY_VOID(read_endpoint(keys, config));
  USBD_TRY(const std::optional<bool> path_style, flag_of(keys, "path_style"));
  config.path_style = path_style.value_or(!value_of(keys, "endpoint").empty());
  config.ca_file = value_of(keys, "ca_file");
  return config;
}

Result<BucketAddress> address_of(const S3Config& config, std::string_view bucket) {
  const auto is_edge = [](char c) { return c == '.' || c == '-' || c == '_'; };
  if (bucket.size() < 3 || bucket.size() > 63 || !all_of(bucket, ".-_") ||
      is_edge(bucket.front()) || is_edge(bucket.back()) ||
      bucket.find("..") != std::string_view::npos) {
    return invalid(
        "\"{}\" cannot be the name of a bucket: 3 to 63 letters, digits, dots and hyphens, the "
        "first and last of them letters or digits; -objstore-container can name another",
        bucket);
  }
  const bool host_style = !config.path_style && !(config.tls && bucket.contains('.'));
  BucketAddress address;
  address.host = host_style ? fmt::format("{}.{}", bucket, config.authority) : config.authority;
  address.origin = (config.tls ? "https://" : "http://") + address.host;
  address.path = host_style ? "/" : fmt::format("/{}/", bucket);
  return address;
}

}  // namespace usbd::objects::s3
