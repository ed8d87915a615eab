// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes NBD sessions, handshake and transmission as one state machine: session_run.h says what the
// input decides and what is checked. At exit it prints how many runs there were, and in how many of
// them a client came through the handshake.

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "fuzz/session_run.h"

namespace {

uint64_t runs = 0;
uint64_t runs_past_handshake = 0;

void print_counts() {
  const double share =
      runs == 0 ? 0.0
                : 100.0 * static_cast<double>(runs_past_handshake) / static_cast<double>(runs);
  std::fprintf(stderr, "nbd_session_fuzz: %llu executions, %.1f %% past the handshake\n",
               static_cast<unsigned long long>(runs), share);
}

}  // namespace

// Runs are short: what is freed in one, a megabyte at most, need not be remembered for long after
// it, and more would miss the processor's cache at each allocation. To see where memory of a report
// came from, repeat it with ASAN_OPTIONS=malloc_context_size=30.
extern "C" const char* __asan_default_options() {  // NOLINT(bugprone-reserved-identifier): its name
  return "quarantine_size_mb=2:malloc_context_size=2:allocator_release_to_os_interval_ms=-1";
}

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  usbd::log::set_sink([](usbd::log::Level, std::string_view) {});
  return std::atexit(print_counts);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static usbd::fuzz::Workbench workbench;
  usbd::fuzz::SessionRun run(workbench, usbd::fuzz::FuzzInput({data, size}));
  run.run();
  ++runs;
  if (run.passed_handshake()) ++runs_past_handshake;
  return 0;
}
