// SPDX-License-Identifier: Apache-2.0
//
// The configuration file: TOML whose keys are the names of the flags without the dash.
//
//   store-dir = "/srv/usbd"          # settings of every volume
//   log-format = "journal"
//   [[volume]]                       # settings of one; they win over those above
//   dev-type = "file"
//   store-name = "vol0"
//   store-size = "20GiB"
//   export = ["nbd", "unix:/run/vol0.sock"]
//
// Values are strings, or the TOML number, boolean or (for repeatable flags) array of the same
// meaning; objstore-cfg may be a table. Without [[volume]] the file describes one volume.

#pragma once

#include <string>
#include <string_view>

#include "daemon/flags.h"

namespace usbd::daemon {

/// Reads the settings in `text` into `values`, as Origin::kFile.
/// `source` is what messages call the text.
/// Errors: kInvalid: not TOML, an unknown key, a bad value, or more volumes than this build serves;
///         the message says where.
Result<void> parse_config(std::string_view text, const std::string& source, FlagValues& values);

/// The same for a file. Errors: also what opening and reading said.
Result<void> read_config_file(const std::string& path, FlagValues& values);

}  // namespace usbd::daemon
