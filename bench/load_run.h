// SPDX-License-Identifier: Apache-2.0
//
// run_load: one run of the load generator: connects, warms up, measures, lets every outstanding
// request finish, and adds up what the threads counted.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include "bench/load_connection.h"
#include "bench/nbd_client.h"
#include "bench/socket.h"
#include "bench/workload.h"
#include "usbd/result.h"

namespace usbd::bench {

struct LoadOptions {
  Endpoint endpoint;
  std::string export_name;
  WorkloadOptions workload;
  /// Requests in flight on each connection.
  uint64_t depth = 1;
  uint64_t connections = 1;
  /// Connections are dealt out to them in turn.
  uint64_t threads = 1;
  /// Units: seconds. Not used by a fill, which ends by itself.
  double measured_seconds = 3;
  double ramp_seconds = 0.2;
  /// Use no more of the export than this. Units: bytes; 0: all.
  uint64_t size_max = 0;
  bool fua = false;
  bool structured = false;
  /// Compare what is read with the pattern.
  bool verify = false;
  /// Spin instead of sleeping while there is nothing to receive.
  bool busy_poll = false;
  uint64_t socket_buffer = 0;
  /// How long the server may be silent while requests are outstanding. Units: seconds.
  uint64_t patience_seconds = 30;
  /// Whose CPU time is accounted, with its descendants; 0: nobody's.
  pid_t server_pid = 0;
};

struct LoadResult {
  LoadCounters counters;
  ExportInfo export_info;
  double seconds = 0;
  /// Units of all CPU times: seconds of CPU, within the measured time.
  double client_cpu = 0;
  std::optional<double> server_cpu;
  /// Used by processes that are neither the server nor we.
  double other_cpu = 0;
  double stolen_cpu = 0;
};

/// Errors: those of connecting and negotiating; kInvalid (the export cannot serve this workload, or
/// the server broke the protocol); kTimedOut (it stopped answering). Wrong data and error replies
/// are no errors here: they are counted.
Result<LoadResult> run_load(const LoadOptions& options);

}  // namespace usbd::bench
