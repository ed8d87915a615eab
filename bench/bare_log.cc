// SPDX-License-Identifier: Apache-2.0
//
// bare_log: the limit that a disk sets to a journal: blocks written one behind the other into a
// file that was written before, past the page cache, with an fdatasync after so many of them.
// Prints one line of JSON; a rate in blocks of 4 KiB.
//
// Exit status: 0; 1 the disk failed; 2 wrong usage.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/unique_fd.h"
#include "bench/aligned_buffer.h"
#include "bench/arguments.h"
#include "bench/load_connection.h"
#include "bench/pattern.h"

namespace usbd::bench {
namespace {

struct CommandLine {
  std::string path;
  uint64_t file_size = 64U << 20;
  uint64_t write_size = 256U << 10;
  uint64_t sync_every = 1;
  double seconds = 3;
  bool help = false;
};

std::vector<Argument> argument_table(CommandLine& line) {
  return {
      {"file", "PATH", "is made, and removed afterwards", into(line.path)},
      {"size", "SIZE", "of the file, which is used as a ring (default 64MiB)",
       into_size(line.file_size)},
      {"block", "SIZE", "of a write, a multiple of 4KiB (default 256KiB)",
       into_size(line.write_size)},
      {"sync-every", "N", "an fdatasync after so many writes; 0: none (default 1)",
       into_number(line.sync_every, 0, 1U << 30)},
      {"seconds", "S", "how long (default 3)", into_seconds(line.seconds)},
      {"help", "", "print this", into(line.help)},
  };
}

Result<void> put(int fd, const std::byte* data, uint64_t size, uint64_t offset) {
  if (pwrite(fd, data, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size)) return {};
  return Error::from_errno(errno != 0 ? errno : EIO, "cannot write");
}

Result<void> write_log(const CommandLine& line, int fd) {
  const AlignedBuffer data = make_aligned_buffer(line.write_size);
  fill_pattern(MutableBytes(data.get(), line.write_size), 1, 0);
  const uint64_t writes_in_file = line.file_size / line.write_size;
  for (uint64_t i = 0; i < writes_in_file; ++i) {
    USBD_TRY_VOID(put(fd, data.get(), line.write_size, i * line.write_size));
  }
  if (fdatasync(fd) != 0) return Error::from_errno(errno, "cannot sync");
  const uint64_t started = clock_now();
  const uint64_t ends_at = started + static_cast<uint64_t>(line.seconds * 1e9);
  uint64_t writes = 0;
  uint64_t now = started;
  for (; now < ends_at; now = clock_now()) {
    USBD_TRY_VOID(put(fd, data.get(), line.write_size, writes % writes_in_file * line.write_size));
    ++writes;
    const bool sync = line.sync_every > 0 && writes % line.sync_every == 0;
    if (sync && fdatasync(fd) != 0) return Error::from_errno(errno, "cannot sync");
  }
  const double seconds = static_cast<double>(now - started) / 1e9;
  const double bytes = static_cast<double>(writes * line.write_size);
  fmt::print(
      "{{\"op\": \"log\", \"calls\": {}, \"seconds\": {:.6f}, \"iops\": {:.3f}, "
      "\"mb_per_s\": {:.3f}}}\n",
      writes, seconds, bytes / 4096 / seconds, bytes / seconds / 1e6);
  return {};
}

Result<void> measure(const CommandLine& line) {
  const UniqueFd fd(
      open(line.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600));
  if (!fd) return Error::from_errno(errno, "cannot make " + line.path);
  const Result<void> done = write_log(line, fd.get());
  unlink(line.path.c_str());
  return done;
}

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  namespace bench = usbd::bench;
  bench::CommandLine line;
  const std::vector<bench::Argument> table = bench::argument_table(line);
  const auto parsed =
      bench::parse_arguments(table, std::span(argv + 1, static_cast<size_t>(argc - 1)));
  if (parsed && line.help) {
    fmt::print("bare_log --file PATH [ARGUMENT...]: the limit that a disk sets to a journal\n{}",
               bench::describe(table));
    return 0;
  }
  const bool fits = line.write_size % 4096 == 0 && line.write_size > 0 &&
                    line.file_size >= line.write_size && !line.path.empty();
  if (!parsed || !fits) {
    fmt::print(stderr, "bare_log: {}\n",
               parsed ? "--file is needed, --block must be a multiple of 4KiB and fit into --size"
                      : parsed.error().message());
    return 2;
  }
  const usbd::Result<void> done = bench::measure(line);
  if (!done) fmt::print(stderr, "bare_log: {}\n", done.error().message());
  return done ? 0 : 1;
}
