// SPDX-License-Identifier: Apache-2.0
//
// See load_run.h.

#include "bench/load_run.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "bench/load_worker.h"
#include "bench/process_cpu.h"

namespace usbd::bench {
namespace {

using Workers = std::vector<std::unique_ptr<LoadWorker>>;

/// The clocks at one moment.
struct Reading {
  uint64_t time = 0;
  double client = 0;
  TreeCpu server;
  MachineCpu machine;
};

Result<Reading> read_clocks(const LoadOptions& options) {
  Reading reading;
  if (options.server_pid != 0) {
    USBD_TRY(reading.server, tree_cpu(options.server_pid));
  }
  USBD_TRY(reading.machine, machine_cpu());
  reading.client = own_cpu_seconds();
  reading.time = clock_now();
  return reading;
}

Result<void> require(const ExportInfo& info, uint16_t flag, bool wanted, std::string_view what) {
  if (!wanted || (info.flags & flag) != 0) return {};
  return Error(Errc::kNotSupported, fmt::format("the server does not offer {}", what));
}

Result<void> check_export(const ExportInfo& info, const LoadOptions& options) {
  using Kind = WorkloadOptions::Kind;
  const WorkloadOptions& workload = options.workload;
  if (workload.writes() && (info.flags & nbd::kTransmitReadOnly) != 0) {
    return Error(Errc::kReadOnly, "the export cannot be written");
  }
  const bool flushes = workload.kind == Kind::kFlush || workload.flush_every != 0;
  USBD_TRY_VOID(require(info, nbd::kTransmitFlush, flushes, "FLUSH"));
  USBD_TRY_VOID(require(info, nbd::kTransmitTrim, workload.kind == Kind::kTrim, "TRIM"));
  USBD_TRY_VOID(
      require(info, nbd::kTransmitWriteZeroes, workload.kind == Kind::kZero, "WRITE_ZEROES"));
  USBD_TRY_VOID(require(info, nbd::kTransmitFua, options.fua, "FUA"));
  const uint64_t needed = uint64_t{workload.block_size} * options.connections;
  if (info.size < needed) {
    return Error(Errc::kInvalid,
                 fmt::format("the export has {} bytes; {} connections with blocks "
                             "of {} need {}",
                             info.size, options.connections, workload.block_size, needed));
  }
  return {};
}

/// The part of the device that connection `index` goes through in order.
ByteRange sequential_part(const LoadOptions& options, uint64_t size, uint64_t index) {
  const uint64_t block = options.workload.block_size;
  const uint64_t each = size / block / options.connections * block;
  const bool is_last = index + 1 == options.connections;
  return ByteRange(each * index, is_last ? size / block * block - each * index : each);
}

Result<ExportInfo> connect_one(const LoadOptions& options, uint64_t index, LoadWorker& worker) {
  USBD_TRY(Socket socket, connect_to(options.endpoint));
  USBD_TRY_VOID(set_buffer_size(socket, options.socket_buffer));
  USBD_TRY_VOID(set_receive_timeout(socket, options.patience_seconds));
  USBD_TRY(ExportInfo info, negotiate(socket, options.export_name, options.structured));
  if (options.size_max != 0) info.size = std::min(info.size, options.size_max);
  USBD_TRY_VOID(check_export(info, options));
  const LoadConnectionOptions connection{.depth = static_cast<uint32_t>(options.depth),
                                         .block_size = options.workload.block_size,
                                         .fua = options.fua,
                                         .verify = options.verify,
                                         .seed = options.workload.seed,
                                         .data = options.workload.data};
  worker.add(
      std::move(socket), connection,
      Workload(options.workload, info.size, sequential_part(options, info.size, index), index));
  return info;
}

Result<ExportInfo> connect_all(const LoadOptions& options, Workers& workers) {
  const uint64_t threads = std::min(options.threads, options.connections);
  for (uint64_t i = 0; i < threads; ++i) {
    workers.push_back(std::make_unique<LoadWorker>(options.busy_poll, options.patience_seconds));
  }
  ExportInfo info;
  for (uint64_t i = 0; i < options.connections; ++i) {
    USBD_TRY(info, connect_one(options, i, *workers[i % threads]));
  }
  return info;
}

/// Runs the phases while the workers' threads do the work.
Result<void> measure(const LoadOptions& options, size_t worker_count, LoadPhase& phase,
                     Reading& before, Reading& after) {
  using Phase = LoadPhase::Phase;
  const bool fill = options.workload.fill;
  if (!fill) phase.wait_for_ends(worker_count, options.ramp_seconds);
  USBD_TRY(before, read_clocks(options));
  phase.set(Phase::kMeasure);
  phase.wait_for_ends(worker_count, fill ? std::nullopt : std::optional(options.measured_seconds));
  phase.set(Phase::kDrain);
  USBD_TRY(after, read_clocks(options));
  return {};
}

LoadResult subtract(const LoadOptions& options, const Reading& before, const Reading& after) {
  LoadResult result;
  result.seconds = static_cast<double>(after.time - before.time) / 1e9;
  result.client_cpu = after.client - before.client;
  const double server = cpu_used(before.server, after.server);
  if (options.server_pid != 0) result.server_cpu = server;
  const double busy = after.machine.busy - before.machine.busy;
  result.other_cpu = std::max(0.0, busy - result.client_cpu - server);
  result.stolen_cpu = after.machine.stolen - before.machine.stolen;
  return result;
}

}  // namespace

Result<LoadResult> run_load(const LoadOptions& options) {
  Workers workers;
  USBD_TRY(const ExportInfo info, connect_all(options, workers));

  LoadPhase phase;
  if (options.workload.fill) phase.set(LoadPhase::Phase::kMeasure);
  Reading before, after;
  Result<void> measured;
  {
    std::vector<std::jthread> threads;
    for (auto& worker : workers) {
      threads.emplace_back([&phase, one = worker.get()] { one->run(phase); });
    }
    measured = measure(options, workers.size(), phase, before, after);
    phase.set(LoadPhase::Phase::kDrain);
  }
  for (const auto& worker : workers) {
    USBD_TRY_VOID(worker->outcome());
    USBD_TRY_VOID(worker->disconnect());
  }
  USBD_TRY_VOID(std::move(measured));

  LoadResult result = subtract(options, before, after);
  result.export_info = info;
  for (const auto& worker : workers) result.counters.merge(worker->counters());
  return result;
}

}  // namespace usbd::bench
