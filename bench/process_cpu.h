// SPDX-License-Identifier: Apache-2.0
//
// How much CPU time was used: by a process with all its descendants (some servers fork one for
// each client), by ourselves, and by the whole machine, so that a run disturbed by others shows.

#pragma once

#include <map>

#include <sys/types.h>

#include "usbd/result.h"

namespace usbd::bench {

/// Units: seconds of CPU time since an arbitrary point.
struct MachineCpu {
  double busy = 0;
  /// Time in which the hypervisor ran others although we had work.
  double stolen = 0;
};

/// CPU seconds of each process of a tree.
using TreeCpu = std::map<pid_t, double>;

/// CPU seconds of `pid` and of its descendants, as far as they are alive.
/// Errors: kNotFound if there is no such process.
Result<TreeCpu> tree_cpu(pid_t pid);
/// What the processes that are alive in `after` used since `before`. One that has ended in between
/// is left out: it belonged to a client that left earlier.
double cpu_used(const TreeCpu& before, const TreeCpu& after);
/// CPU seconds of the calling process.
double own_cpu_seconds();
/// Errors: kIo if /proc/stat cannot be read.
Result<MachineCpu> machine_cpu();

}  // namespace usbd::bench
