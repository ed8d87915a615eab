// SPDX-License-Identifier: Apache-2.0
//
// Lines for people: one for a run, one for a histogram, one for a rule.

#include "sim/run.h"

#include <cstdio>
#include <cstdlib>

#include <malloc.h>

#include <fmt/format.h>

#include "base/sanitized.h"

namespace usbd::sim {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t first_seed() {
  return from_environment("USBD_SIM_SEED", 1);
}

uint64_t histories(uint64_t otherwise) {
  return from_environment("USBD_SIM_HISTORIES", sanitized() ? otherwise / 10 : otherwise);
}

void keep_freed_memory() {
  constexpr int kKept = 32 << 20;  // the most that glibc takes
  mallopt(M_MMAP_THRESHOLD, kKept);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

void print_run(const char* what, uint64_t run, std::chrono::steady_clock::duration took,
               std::span<const Counted> counts) {
  const double seconds = std::chrono::duration<double>(took).count();
  std::string line =
      fmt::format("{}: {} histories, seeds {} to {}, {:.0f} a second;", what, run, first_seed(),
                  first_seed() + run - 1, static_cast<double>(run) / (seconds > 0 ? seconds : 1));
  for (const auto& [name, value] : counts) {
    if (value > 0) line += fmt::format(" {} {},", name, value);
  }
  line.back() = '\n';
  std::fputs(line.c_str(), stdout);
}

void print_histogram(const char* what, std::span<const Counted> counts) {
  uint64_t all = 0;
  for (const auto& [name, value] : counts) all += value;
  if (all == 0) return;
  std::string line = fmt::format("  {} ({}):", what, all);
  for (const auto& [name, value] : counts) {
    const double share = 100.0 * static_cast<double>(value) / static_cast<double>(all);
    line += fmt::format(" {} {:.1f} %,", name, share);
  }
  line.back() = '\n';
  std::fputs(line.c_str(), stdout);
}

bool finds_broken_rule(const char* rule, uint64_t most,
                       const std::function<std::string(uint64_t seed)>& broken_promise) {
  keep_freed_memory();
  for (uint64_t run = 1; run <= most; ++run) {
    const std::string found = broken_promise(first_seed() + run - 1);
    if (found.empty()) continue;
    std::fputs(
        fmt::format("oracle | {} | found after {} histories | {}\n", rule, run, found).c_str(),
        stdout);
    return true;
  }
  std::fputs(fmt::format("oracle | {} | not found in {} histories\n", rule, most).c_str(), stdout);
  return false;
}

}  // namespace usbd::sim
