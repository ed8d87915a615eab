// SPDX-License-Identifier: Apache-2.0
//
// The texts of --help, one for each level: the program, `volume`, each command of it.

#pragma once

#include <span>
#include <string>
#include <string_view>

#include "daemon/flags.h"

namespace usbd::ctl {

struct CommandHelp {
  std::string_view name;
  /// One line.
  std::string_view summary;
  /// What it does, in paragraphs, with an example.
  std::string_view text;
};

/// The commands on a volume.
std::span<const CommandHelp> volume_commands();

std::string program_help();
std::string volume_help();
/// Range: `specs` are those that the command takes.
std::string command_help(const CommandHelp& command, std::span<const daemon::FlagSpec> specs);

}  // namespace usbd::ctl
