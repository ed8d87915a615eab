// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the values of flags that are more than a word: JSON objects that say how a store is
// reached (never read from files here), codecs and key sources. The first byte chooses the kind of
// store.

#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/objstore_flags.h"
#include "fuzz/input.h"

using usbd::fuzz::promise;

namespace {

constexpr std::string_view kKinds[] = {"s3",    "b2",     "local",  "azure",
                                       "swift", "google", "oracle", "sftp"};

void check(const usbd::Result<void>& result) {
  if (!result) promise(!result.error().context().empty(), "an error says what is allowed");
}

void check_config(std::string_view kind, std::string_view text) {
  const auto config = usbd::daemon::read_store_config(text);
  promise(config.has_value(), "what was checked can be read");
  check(usbd::daemon::check_store_keys(kind, *config));
  const std::string shown = usbd::daemon::redacted(*config);
  for (const auto& [key, value] : *config) {
    const bool hidden = shown.find(key + "=<REDACTED>") != std::string::npos;
    promise(hidden || !usbd::daemon::is_secret_name(key), "what is secret is not shown");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return -1;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(usbd::daemon::check_dedup_codec(text));
  check(usbd::daemon::check_objstore_codec(text));
  check(usbd::daemon::check_key_source(text));
  const auto allowed = usbd::daemon::check_store_config(text);
  check(allowed);
  const bool elsewhere = text.starts_with('@') || text.starts_with("env:");
  if (allowed && !elsewhere) check_config(kKinds[data[0] % std::size(kKinds)], text);
  return 0;
}
