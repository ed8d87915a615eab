// SPDX-License-Identifier: Apache-2.0
//
// The program usbdctl: its commands, the flags that they take, its help and its exit statuses
// (docs/usbdctl.md).

#pragma once

#include <vector>

#include "daemon/flags.h"

namespace usbd::ctl {

enum ExitStatus : int {
  kExitFine = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitDamaged = 3,
};

/// The flags of every command on a volume: those of the daemon, so that a volume is named with the
/// same words, environment and configuration file, and a few of usbdctl's own.
std::vector<daemon::FlagSpec> volume_flags();

/// Runs from the words to the exit status. Threads: the main one, before there are others.
int run(int argc, char** argv);

}  // namespace usbd::ctl
