// SPDX-License-Identifier: Apache-2.0
//
// A whole program around a Service: flags, logging, signals, messages, pid file, readiness, exit
// status. The daemon and usbd::serve() differ only in their table of flags and in how the volume
// is opened.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "daemon/flags.h"
#include "daemon/help.h"
#include "daemon/settings.h"
#include "daemon/volume.h"

namespace usbd::daemon {

/// What -help says of exit statuses; 3 and 4 are of volumes that are kept elsewhere.
enum ExitStatus : int {
  kExitClean = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitUnpublished = 3,
  kExitTakenOver = 4,
};

struct ProgramSpec {
  HelpText about;
  std::vector<FlagSpec> flags;
  /// Chooses how the volume is opened, once the flags are read.
  std::function<VolumeOpener(const Settings&)> opener;
};

/// Runs from the flags to the exit status. Threads: the main one, before there are others.
int run_program(const ProgramSpec& spec, int argc, char** argv);

/// The daemon.
int run_daemon(int argc, char** argv);

}  // namespace usbd::daemon
