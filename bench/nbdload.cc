// SPDX-License-Identifier: Apache-2.0
//
// nbdload: an NBD load generator. It keeps a number of connections full of requests for some
// seconds and prints one line of JSON: rates, latencies, and the CPU time of both sides.
//
// Exit status: 0 all went well; 1 it could not run to its end; 2 wrong usage; 3 the server answered
// with errors or, with --verify, with wrong data.

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "bench/arguments.h"
#include "bench/load_run.h"

namespace usbd::bench {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitErrors = 3;

constexpr uint64_t kBlockSizeMax = 64U << 20;
constexpr uint64_t kCountMax = 4096;
constexpr uint64_t kPatienceMax = 3600;

/// What the command line says, as it says it.
struct CommandLine {
  LoadOptions load;
  std::string operation = "randread";
  std::string data = "static";
  std::string label;
  uint64_t block_size = 4096;
  uint64_t server_pid = 0;
  bool help = false;
};

std::vector<Argument> connection_arguments(CommandLine& line) {
  LoadOptions& load = line.load;
  return {
      {"unix", "PATH", "connect to this unix socket", into(load.endpoint.unix_path)},
      {"tcp", "HOST:PORT", "or to this address", into(load.endpoint.tcp)},
      {"export", "NAME", "the export's name (default: the empty one)", into(load.export_name)},
      {"connections", "N", "how many (default 1)", into_number(load.connections, 1, kCountMax)},
      {"threads", "N", "of this program, at most one a connection (default 1)",
       into_number(load.threads, 1, kCountMax)},
      {"structured", "", "ask for structured replies", into(load.structured)},
      {"busy", "", "spin instead of sleeping", into(load.busy_poll)},
      {"socket-buffer", "SIZE", "of the client's socket", into_size(load.socket_buffer)},
  };
}

std::vector<Argument> workload_arguments(CommandLine& line) {
  LoadOptions& load = line.load;
  WorkloadOptions& workload = load.workload;
  return {
      {"op", "OPERATION",
       "randread, randwrite, randmix, read, write, mix, trim, zero, flush; or once through "
       "everything, in order: fill writes, scan reads (default randread)",
       into_choice(line.operation, {"randread", "randwrite", "randmix", "read", "write", "mix",
                                    "trim", "zero", "flush", "fill", "scan"})},
      {"block", "SIZE", "of an operation (default 4KiB)", into_size(line.block_size)},
      {"depth", "N", "requests in flight on each connection (default 1)",
       into_number(load.depth, 1, kCountMax)},
      {"read-percent", "N", "share of reads in a mix (default 70)",
       into_number(workload.read_percent, 0, 100)},
      {"flush-every", "N", "a flush after so many writes",
       into_number(workload.flush_every, 0, ~0U)},
      {"fua", "", "set FUA on all that modifies", into(load.fua)},
      {"size", "SIZE", "use only so much of the export", into_size(load.size_max)},
      {"data", "KIND", "what is written: static, pattern or unique (default static)",
       into_choice(line.data, {"static", "pattern", "unique"})},
      {"duplicate-percent", "N", "share of common blocks in unique data",
       into_number(workload.duplicate_percent, 0, 100)},
      {"verify", "", "write the pattern, and compare what is read with it", into(load.verify)},
      {"seed", "N", "of offsets and of the pattern (default 1)",
       into_number(workload.seed, 0, ~uint64_t{0})},
  };
}

std::vector<Argument> measurement_arguments(CommandLine& line) {
  return {
      {"seconds", "S", "how long to measure (default 3)", into_seconds(line.load.measured_seconds)},
      {"ramp", "S", "how long to warm up before (default 0.2)",
       into_seconds(line.load.ramp_seconds)},
      {"server-pid", "PID", "account this process's CPU time, with its descendants'",
       into_number(line.server_pid, 1, 1U << 30)},
      {"patience", "S", "give up on a server that is silent for so long (default 30)",
       into_number(line.load.patience_seconds, 1, kPatienceMax)},
      {"label", "TEXT", "copied to the output", into(line.label)},
      {"help", "", "print this", into(line.help)},
  };
}

std::vector<Argument> argument_table(CommandLine& line) {
  std::vector<Argument> table = connection_arguments(line);
  for (Argument& argument : workload_arguments(line)) table.push_back(std::move(argument));
  for (Argument& argument : measurement_arguments(line)) table.push_back(std::move(argument));
  return table;
}

/// Range: `name` is one of the choices in the table above.
void set_operation(const std::string& name, WorkloadOptions& workload) {
  using Kind = WorkloadOptions::Kind;
  const bool random = name.starts_with("rand");
  const std::map<std::string, Kind> kinds{{"read", Kind::kRead},  {"write", Kind::kWrite},
                                          {"fill", Kind::kWrite}, {"scan", Kind::kRead},
                                          {"mix", Kind::kMix},    {"trim", Kind::kTrim},
                                          {"zero", Kind::kZero},  {"flush", Kind::kFlush}};
  workload.kind = kinds.at(random ? name.substr(4) : name);
  workload.fill = name == "fill" || name == "scan";
  workload.sequential = !random;
}

Result<void> complete(CommandLine& line) {
  LoadOptions& load = line.load;
  if (load.endpoint.unix_path.empty() == load.endpoint.tcp.empty()) {
    return Error(Errc::kInvalid, "give one of --unix and --tcp");
  }
  if (line.block_size == 0 || line.block_size > kBlockSizeMax || line.block_size % 8 != 0) {
    return Error(Errc::kInvalid, fmt::format("--block: {} is not a multiple of 8 from 8 to 64MiB",
                                             line.block_size));
  }
  load.workload.block_size = static_cast<uint32_t>(line.block_size);
  load.server_pid = static_cast<pid_t>(line.server_pid);
  set_operation(line.operation, load.workload);
  load.workload.data = line.data == "unique"                   ? DataKind::kUnique
                       : line.data == "pattern" || load.verify ? DataKind::kPattern
                                                               : DataKind::kStatic;
  if (load.verify && load.workload.data != DataKind::kPattern) {
    return Error(Errc::kInvalid, "--verify needs --data pattern");
  }
  return {};
}

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (static_cast<unsigned char>(c) >= ' ') quoted += c;
  }
  return quoted + '"';
}

double per(double amount, double count) {
  return count > 0 ? amount / count : 0;
}

std::string latency_json(const LatencyHistogram& latency) {
  return fmt::format(
      "{{\"mean\":{:.2f},\"p50\":{:.2f},\"p99\":{:.2f},\"p999\":{:.2f},\"max\":{:.2f}}}",
      latency.mean() / 1e3, latency.percentile(0.5) / 1e3, latency.percentile(0.99) / 1e3,
      latency.percentile(0.999) / 1e3, static_cast<double>(latency.largest()) / 1e3);
}

std::string to_json(const CommandLine& line, const LoadResult& result) {
  const LoadCounters& counted = result.counters;
  const auto operations = static_cast<double>(counted.operations());
  const auto bytes = static_cast<double>(counted.bytes);
  std::string text = fmt::format(
      "{{\"label\":{},\"op\":\"{}\",\"block\":{},\"depth\":{},\"connections\":{},\"threads\":{},"
      "\"seed\":{},\"export_size\":{},\"multi_conn\":{},\"seconds\":{:.3f},",
      quote(line.label), line.operation, line.block_size, line.load.depth, line.load.connections,
      std::min(line.load.threads, line.load.connections), line.load.workload.seed,
      result.export_info.size, (result.export_info.flags & nbd::kTransmitMultiConn) != 0,
      result.seconds);
  text += fmt::format(
      "\"reads\":{},\"writes\":{},\"others\":{},\"errors\":{},\"iops\":{:.0f},\"mb_per_s\":{:.1f},"
      "\"latency_us\":{},\"client_cpu_s\":{:.4f},\"other_cpu_s\":{:.2f},\"stolen_cpu_s\":{:.2f},",
      counted.reads, counted.writes, counted.others, counted.errors,
      per(operations, result.seconds), per(bytes / 1e6, result.seconds),
      latency_json(counted.latency), result.client_cpu, result.other_cpu, result.stolen_cpu);
  if (result.server_cpu) {
    text += fmt::format("\"server_cpu_s\":{:.4f},\"server_cpu_s_per_100k\":{:.4f},",
                        *result.server_cpu, per(*result.server_cpu * 1e5, operations));
  }
  text += fmt::format("\"ios_per_send\":{:.2f},\"ios_per_receive\":{:.2f}}}",
                      per(operations, static_cast<double>(counted.send_calls)),
                      per(operations, static_cast<double>(counted.receive_calls)));
  return text;
}

int run(std::span<char* const> words) {
  CommandLine line;
  const std::vector<Argument> table = argument_table(line);
  Result<void> parsed = parse_arguments(table, words);
  if (parsed && line.help) {
    fmt::print("usage: nbdload --unix PATH|--tcp HOST:PORT [arguments]\n{}", describe(table));
    return 0;
  }
  if (parsed) parsed = complete(line);
  if (!parsed) {
    fmt::print(stderr, "nbdload: {}\n", parsed.error().context());
    return kExitUsage;
  }
  const Result<LoadResult> result = run_load(line.load);
  if (!result) {
    fmt::print(stderr, "nbdload: {}\n", result.error().message());
    return kExitFailed;
  }
  fmt::print("{}\n", to_json(line, *result));
  return result->counters.errors == 0 ? 0 : kExitErrors;
}

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  return usbd::bench::run(std::span<char* const>(argv + 1, static_cast<size_t>(argc - 1)));
}
