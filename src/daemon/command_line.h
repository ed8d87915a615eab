// SPDX-License-Identifier: Apache-2.0
//
// What every program with the daemon's flags does around parsing them: the environment as words,
// and secrets overwritten where every user of the machine could read them.

#pragma once

#include <string>
#include <vector>

#include "daemon/flags.h"

namespace usbd::daemon {

/// The process's environment as parse_environment() takes it.
std::vector<std::string> environment_words();

/// Overwrites the values of secret flags in the process's own words. Range: parse_arguments() has
/// taken them without an error; words that name no flag are left alone.
/// Threads: the main one, before there are others.
void hide_secrets(const FlagValues& values, int argc, char** argv);

}  // namespace usbd::daemon
