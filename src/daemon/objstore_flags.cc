// SPDX-License-Identifier: Apache-2.0
//
// The table of keys per kind of store stands here; the stores themselves take the checked map.

#include "daemon/objstore_flags.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <span>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/assert.h"
#include "daemon/text_file.h"

namespace usbd::daemon {
namespace {

constexpr int kZstdLevelMax = 19;

struct StoreKind {
  std::string_view name;
  /// Each entry is one required key, or several of which one is enough ("a|b").
  std::vector<std::string_view> required;
  std::vector<std::string_view> optional;
};

/// s3 requires nothing here: absent credentials come from the standard AWS places.
std::vector<StoreKind> store_kinds() {
  return {
      {"s3",
       {},
       {"access_key_id", "secret_key", "auth_type", "token", "region", "endpoint", "disable_ssl",
        "path_style", "ca_file", "v2_signing"}},
      {"b2", {"application_key", "account_id|application_key_id"}, {"endpoint"}},
      {"local", {"path"}, {}},
      {"azure", {"account", "key"}, {"endpoint", "sas"}},
      {"swift",
       {"username", "key", "tenant_name", "tenant_auth_url"},
       {"domain", "region", "auth_version"}},
      {"google", {"json", "project_id"}, {"scopes", "endpoint"}},
      {"oracle",
       {"username|access_key_id", "password|secret_key", "authorization_endpoint|namespace"},
       {"region", "endpoint"}},
      {"sftp",
       {"host", "port", "username", "password|private_key"},
       {"private_key_passphrase", "host_public_key", "insecure_host_key", "base_path"}},
  };
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string> known_keys(const StoreKind& kind) {
  std::vector<std::string> keys;
  for (const std::string_view key : kind.required) {
    for (std::string& name : split(key, '|')) keys.push_back(std::move(name));
  }
  for (const std::string_view key : kind.optional) keys.emplace_back(key);
  return keys;
}

Result<void> check_codec(std::string_view value, std::span<const std::string_view> plain) {
  if (std::ranges::find(plain, value) != plain.end()) return {};
  if (value.starts_with("zstd:")) {
    int level = 0;
    const char* const end = value.data() + value.size();
    const auto [at, error] = std::from_chars(value.data() + 5, end, level);
    const bool number = error == std::errc() && at == end;
    if (number && level >= 1 && level <= kZstdLevelMax) return {};
    return Error(Errc::kInvalid,
                 fmt::format("a zstd level is 1 to {}, such as zstd:3", kZstdLevelMax));
  }
  return Error(Errc::kInvalid,
               fmt::format("allowed are {} and zstd:LEVEL", fmt::join(plain, ", ")));
}

Result<StoreConfig> parse_object(std::string_view text) {
  const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
  if (parsed.is_discarded()) {
    return Error(Errc::kInvalid,
                 "it is not valid JSON; allowed is an object of strings such as "
                 "{\"path\":\"/srv/bucket\"}, or @FILE, or env:NAME");
  }
  if (!parsed.is_object()) {
    return Error(Errc::kInvalid, "it is JSON, but not an object of strings");
  }
  StoreConfig config;
  for (const auto& [key, value] : parsed.items()) {
    if (!value.is_string()) {
      return Error(Errc::kInvalid,
                   fmt::format("the value of key \"{}\" is {}; every value is a string in quotes",
                               key, value.type_name()));
    }
    config.emplace(key, value.get<std::string>());
  }
  return config;
}

}  // namespace

Result<void> check_dedup_codec(std::string_view value) {
  constexpr std::array<std::string_view, 3> kPlain = {"lz4", "zstd", "identity"};
  return check_codec(value, kPlain);
}

Result<void> check_objstore_codec(std::string_view value) {
  constexpr std::array<std::string_view, 5> kPlain = {"lz4", "zstd", "s2", "gzip", "identity"};
  return check_codec(value, kPlain);
}

Result<void> check_key_source(std::string_view value) {
  const size_t colon = value.find(':');
  const std::string_view scheme = value.substr(0, colon);
  constexpr std::array<std::string_view, 5> kSchemes = {"key", "file", "env", "fd", "cred"};
  const bool known = std::ranges::find(kSchemes, scheme) != kSchemes.end();
  if (colon == std::string_view::npos || !known) {
    return Error(Errc::kInvalid, "allowed are key:KEY, file:PATH, env:NAME, fd:NUMBER, cred:NAME");
  }
  const std::string_view rest = value.substr(colon + 1);
  if (rest.empty()) return Error(Errc::kInvalid, fmt::format("{}: is followed by nothing", scheme));
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (scheme == "fd" && (rest.size() > 6 || !std::ranges::all_of(rest, digit))) {
    return Error(Errc::kInvalid, "fd: is followed by the number of an open file");
  }
  return {};
}

Result<void> check_store_config(std::string_view value) {
  if (value.starts_with('@')) {
    if (value.size() == 1) return Error(Errc::kInvalid, "@ is followed by the name of a file");
    return {};
  }
  if (value.starts_with("env:")) {
    if (value.size() == 4) return Error(Errc::kInvalid, "env: is followed by a variable's name");
    return {};
  }
  USBD_TRY_VOID(parse_object(value));
  return {};
}

Result<StoreConfig> read_store_config(std::string_view value) {
  if (value.starts_with('@')) {
    USBD_TRY(const std::string text, read_text_file(std::string(value.substr(1))));
    return parse_object(text);
  }
  if (value.starts_with("env:")) {
    const std::string name(value.substr(4));
    const char* const text = std::getenv(name.c_str());
    if (text == nullptr) {
      return Error(Errc::kInvalid, fmt::format("the environment variable {} is not set", name));
    }
    return parse_object(text);
  }
  return parse_object(value);
}

Result<void> check_store_keys(std::string_view kind, const StoreConfig& config) {
  const std::vector<StoreKind> kinds = store_kinds();
  const auto found = std::ranges::find(kinds, kind, &StoreKind::name);
  USBD_ASSERT(found != kinds.end());
  const std::vector<std::string> known = known_keys(*found);
  for (const auto& [key, value] : config) {
    if (std::ranges::find(known, key) == known.end()) {
      return Error(Errc::kInvalid,
                   fmt::format("a store of kind {} has no key \"{}\"; allowed are {}", kind, key,
                               fmt::join(known, ", ")));
    }
  }
  for (const std::string_view key : found->required) {
    const std::vector<std::string> names = split(key, '|');
    const auto present = [&config](const std::string& name) { return config.contains(name); };
    if (std::ranges::none_of(names, present)) {
      return Error(Errc::kInvalid, fmt::format("a store of kind {} requires the key {}", kind,
                                               fmt::join(names, " or ")));
    }
  }
  return {};
}

bool is_secret_name(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower == "access_key_id" || lower == "application_key_id") return false;
  if (lower == "sas") return true;
  constexpr std::array<std::string_view, 7> kWords = {"key",   "secret", "cred",   "pass",
                                                      "token", "json",   "private"};
  return std::ranges::any_of(
      kWords, [&lower](std::string_view word) { return lower.find(word) != std::string::npos; });
}

std::string redacted(const StoreConfig& config) {
  std::string text;
  for (const auto& [key, value] : config) {
    if (!text.empty()) text += ", ";
    text += is_secret_name(key) ? fmt::format("{}=<REDACTED>", key)
                                : fmt::format("{}=\"{}\"", key, value);
  }
  return text;
}

}  // namespace usbd::daemon
