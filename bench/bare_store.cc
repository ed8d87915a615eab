// SPDX-License-Identifier: Apache-2.0
//
// bare_store: the limit that an object store sets: nothing but objects of one size put into it, or
// parts of them read, so many at once, by the same client code as a volume's. Prints one line of
// JSON.
//
// Exit status: 0; 1 the store failed; 2 wrong usage.

#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "async/scope.h"
#include "async/testing.h"
#include "base/random.h"
#include "bench/arguments.h"
#include "bench/load_connection.h"
#include "daemon/objstore_store.h"

namespace usbd::bench {
namespace {

struct CommandLine {
  std::string operation = "put";
  std::string kind = "local";
  std::string cfg;
  std::string container = "bench";
  uint64_t object_size = 64U << 20;
  uint64_t objects = 16;
  uint64_t part_size = 0;
  uint64_t depth = 4;
  double seconds = 3;
  bool help = false;
};

std::vector<Argument> argument_table(CommandLine& line) {
  return {
      {"op", "OPERATION",
       "put: puts all objects once; get: reads all of them once, part by part in order; randget: "
       "reads parts at random for some seconds (default put)",
       into_choice(line.operation, {"put", "get", "randget"})},
      {"kind", "KIND", "of the store: local or s3 (default local)",
       into_choice(line.kind, {"local", "s3"})},
      {"cfg", "JSON", "as usbdsrvd's -objstore-cfg", into(line.cfg)},
      {"container", "NAME", "the bucket (default bench)", into(line.container)},
      {"object", "SIZE", "of an object (default 64MiB)", into_size(line.object_size)},
      {"objects", "N", "how many (default 16)", into_number(line.objects, 1, 1U << 20)},
      {"part", "SIZE", "read at once (default: an object)", into_size(line.part_size)},
      {"depth", "N", "calls at once (default 4)", into_number(line.depth, 1, 1024)},
      {"seconds", "S", "of randget (default 3)", into_seconds(line.seconds)},
      {"help", "", "print this", into(line.help)},
  };
}

/// What all calls in flight share.
struct Run {
  const CommandLine& line;
  objects::ObjectStore& store;
  std::vector<std::byte> data;
  SeededRng rng{1};
  uint64_t next = 0;
  uint64_t calls = 0;
  uint64_t bytes = 0;
  uint64_t ends_at = UINT64_MAX;
  std::optional<Error> failed = {};

  [[nodiscard]] uint64_t parts() const { return line.object_size / line.part_size; }
  [[nodiscard]] std::string name(uint64_t object) const { return fmt::format("o/{}", object); }
};

Task<void> put_some(Run& run) {
  while (run.next < run.line.objects && !run.failed) {
    const std::string name = run.name(run.next++);
    objects::CallLimits limits;
    const Result<std::string> put =
        co_await run.store.put(name, run.data, objects::Condition::always(), std::move(limits));
    if (!put) run.failed = put.error();
    ++run.calls;
    run.bytes += run.data.size();
  }
}

Task<void> get_some(Run& run) {
  const bool random = run.line.operation == "randget";
  const uint64_t count = run.parts() * run.line.objects;
  while ((random ? clock_now() < run.ends_at : run.next < count) && !run.failed) {
    const uint64_t index = random ? run.rng.below(count) : run.next++;
    const std::string name = run.name(index / run.parts());
    const uint64_t offset = index % run.parts() * run.line.part_size;
    const objects::Part part = objects::Part::range(offset, run.line.part_size);
    objects::CallLimits limits;
    const Result<objects::Fetched> got = co_await run.store.get(name, part, std::move(limits));
    if (!got) {
      run.failed = got.error();
    } else if (got->data.size() != run.line.part_size) {
      run.failed = Error(Errc::kIo, name + ": shorter than asked for");
    }
    ++run.calls;
    run.bytes += run.line.part_size;
  }
}

Task<Result<void>> measure(CommandLine line, WorkerPool& pool) {
  SystemRng rng;
  daemon::VolumeSettings settings;
  settings.name = line.container;
  settings.objstore.kind = line.kind;
  settings.objstore.cfg = line.cfg;
  USBD_CO_TRY(const std::unique_ptr<objects::ObjectStore> store,
              co_await daemon::open_store(settings, pool, rng));
  Run run{.line = line, .store = *store, .data = std::vector<std::byte>(line.object_size)};
  rng.fill(run.data);
  const uint64_t started = clock_now();
  run.ends_at = started + static_cast<uint64_t>(line.seconds * 1e9);
  Scope scope;
  for (uint64_t i = 0; i < line.depth; ++i) {
    scope.spawn(line.operation == "put" ? put_some(run) : get_some(run));
  }
  co_await scope.close();
  const double seconds = static_cast<double>(clock_now() - started) / 1e9;
  co_await store->close();
  if (run.failed) co_return *run.failed;
  fmt::print(
      "{{\"op\": \"{}\", \"calls\": {}, \"seconds\": {:.6f}, \"iops\": {:.3f}, "
      "\"mb_per_s\": {:.3f}}}\n",
      line.operation, run.calls, seconds, static_cast<double>(run.calls) / seconds,
      static_cast<double>(run.bytes) / seconds / 1e6);
  co_return Result<void>();
}

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  namespace bench = usbd::bench;
  bench::CommandLine line;
  const std::vector<bench::Argument> table = bench::argument_table(line);
  const auto parsed =
      bench::parse_arguments(table, std::span(argv + 1, static_cast<size_t>(argc - 1)));
  if (line.part_size == 0) line.part_size = line.object_size;
  if (!parsed || line.object_size % line.part_size != 0) {
    fmt::print(stderr, "bare_store: {}\n",
               parsed ? "--part does not divide --object" : parsed.error().message());
    return 2;
  }
  if (line.help) {
    fmt::print("bare_store [ARGUMENT...]: the limit that an object store sets\n{}",
               bench::describe(table));
    return 0;
  }
  usbd::testing::TestLoop loop;
  const usbd::Result<void> done = loop.run(bench::measure(line, loop.pool()));
  if (!done) fmt::print(stderr, "bare_store: {}\n", done.error().message());
  return done ? 0 : 1;
}
