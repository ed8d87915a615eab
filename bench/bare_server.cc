// SPDX-License-Identifier: Apache-2.0
//
// bare_server: the leanest NBD server over memory that we know how to write, one thread for each
// connection. Not a product: it marks the limit that usbdsrvd is measured against. Its options are
// the settings among which the best is looked for.
//
// Exit status: 1 it could not start; 2 wrong usage. It runs until it is killed.

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>

#include <fmt/format.h>

#include "bench/arguments.h"
#include "bench/bare_session.h"
#include "bench/socket.h"

namespace usbd::bench {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct CommandLine {
  Endpoint endpoint;
  BareOptions session;
  uint64_t size = 1ULL << 30;
  uint64_t socket_buffer = 0;
  bool huge_pages = false;
  bool help = false;
};

std::vector<Argument> argument_table(CommandLine& line) {
  BareOptions& session = line.session;
  return {
      {"unix", "PATH", "listen on this unix socket", into(line.endpoint.unix_path)},
      {"tcp", "HOST:PORT", "or on this port of 127.0.0.1", into(line.endpoint.tcp)},
      {"size", "SIZE", "of the memory (default 1GiB)", into_size(line.size)},
      {"direct", "SIZE", "receive writes of this size straight into place (default 32KiB)",
       into_size(session.direct_min)},
      {"receive-buffer", "SIZE", "how much to receive at once (default 256KiB)",
       into_size(session.receive_buffer)},
      {"lookahead", "SIZE", "how much to receive behind a write that goes straight into place",
       into_size(session.lookahead)},
      {"socket-buffer", "SIZE", "of each connection", into_size(line.socket_buffer)},
      {"huge", "", "use huge pages", into(line.huge_pages)},
      {"discard", "", "leave the data of writes in the receive buffer", into(session.discard)},
      {"help", "", "print this", into(line.help)},
  };
}

Result<void> check(const CommandLine& line) {
  if (line.endpoint.unix_path.empty() == line.endpoint.tcp.empty()) {
    return Error(Errc::kInvalid, "give one of --unix and --tcp");
  }
  if (line.size == 0) return Error(Errc::kInvalid, "--size: 0 is too small");
  if (line.session.receive_buffer < 4096 || line.session.lookahead < sizeof(nbd::Request)) {
    return Error(Errc::kInvalid, "--receive-buffer needs 4096 bytes, --lookahead 28");
  }
  return {};
}

/// Memory of which every page is there already, so that no run pays for making it.
Result<MutableBytes> make_memory(const CommandLine& line) {
  void* const address =
      ::mmap(nullptr, line.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    return Error::from_errno(errno, fmt::format("cannot get {} bytes of memory", line.size));
  }
  ::madvise(address, line.size, line.huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(address, 1, line.size);
  return MutableBytes(static_cast<std::byte*>(address), line.size);
}

void serve_client(Socket client, MutableBytes memory, const BareOptions& options) {
  BareSession session(std::move(client), memory, options);
  const Result<void> outcome = session.run();
  // Clients that just leave are common: a benchmark kills them.
  if (!outcome && !outcome.error().is(Errc::kIo)) {
    fmt::print(stderr, "bare_server: {}\n", outcome.error().message());
  }
}

Result<void> serve(const CommandLine& line) {
  USBD_TRY(const MutableBytes memory, make_memory(line));
  USBD_TRY(const Socket listener, listen_on(line.endpoint));
  while (true) {
    USBD_TRY(Socket client, accept_from(listener));
    USBD_TRY_VOID(set_buffer_size(client, line.socket_buffer));
    // tidy(detached): the thread ends with its client, or with the process, which is killed.
    std::thread(serve_client, std::move(client), memory, std::cref(line.session)).detach();
  }
}

int run(std::span<char* const> words) {
  CommandLine line;
  const std::vector<Argument> table = argument_table(line);
  Result<void> parsed = parse_arguments(table, words);
  if (parsed && line.help) {
    fmt::print("usage: bare_server --unix PATH|--tcp HOST:PORT [arguments]\n{}", describe(table));
    return 0;
  }
  if (parsed) parsed = check(line);
  if (!parsed) {
    fmt::print(stderr, "bare_server: {}\n", parsed.error().context());
    return kExitUsage;
  }
  const Result<void> served = serve(line);
  fmt::print(stderr, "bare_server: {}\n", served.error().message());
  return kExitFailed;
}

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  return usbd::bench::run(std::span<char* const>(argv + 1, static_cast<size_t>(argc - 1)));
}
