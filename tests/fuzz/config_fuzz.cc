// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the configuration file: TOML whose exceptions must not escape, and whose errors say where.

#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/config_file.h"
#include "daemon/flag_table.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<usbd::daemon::FlagSpec> kTable = usbd::daemon::daemon_flags();
  usbd::daemon::FlagValues values(kTable);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto read = usbd::daemon::parse_config(text, "fuzz.toml", values);
  if (!read) {
    usbd::fuzz::promise(read.error().context().find("fuzz.toml") != std::string::npos,
                        "an error says in which file");
  }
  return 0;
}
