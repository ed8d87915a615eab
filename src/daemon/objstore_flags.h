// SPDX-License-Identifier: Apache-2.0
//
// The values of objstore and dedup flags that are more than a word or a number: codecs, the place
// of the encryption key, and the JSON object that says how to reach an object store.

#pragma once

#include <map>
#include <string>
#include <string_view>

#include "usbd/result.h"

namespace usbd::daemon {

/// `lz4`, `zstd`, `zstd:LEVEL` (1 to 19), `identity`. Errors: kInvalid, saying so.
Result<void> check_dedup_codec(std::string_view value);
/// The same and `s2`, `gzip`.
Result<void> check_objstore_codec(std::string_view value);
/// `key:HEX`, `file:PATH`, `env:NAME`, `fd:N`, `cred:NAME`. Errors: kInvalid; never shows the key.
Result<void> check_key_source(std::string_view value);
/// An object of strings in JSON, or `@FILE`, or `env:NAME`; what the last two name is not read yet.
Result<void> check_store_config(std::string_view value);

using StoreConfig = std::map<std::string, std::string, std::less<>>;

/// The keys and values of `-objstore-cfg`, read from where it says.
/// Errors: kInvalid (not an object of strings), or what reading the file said. Never shows a value.
Result<StoreConfig> read_store_config(std::string_view value);

/// Refuses keys that stores of this kind do not have, and the lack of those they require.
/// Range:  `kind` is a value of -objstore-kind.
/// Errors: kInvalid; names the key, and those that are allowed.
Result<void> check_store_keys(std::string_view kind, const StoreConfig& config);

/// Whether the value of a setting of this name is never shown.
bool is_secret_name(std::string_view name);

/// `config` for people: `endpoint="http://...", secret_key=<REDACTED>`.
std::string redacted(const StoreConfig& config);

}  // namespace usbd::daemon
