// SPDX-License-Identifier: Apache-2.0
//
// The suite's way in: its options from the environment, a run, and what is printed of it.

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include <fmt/core.h>

#include "base/random.h"
#include "conformance/runner.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

void take_number(const char* name, uint64_t& value) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return;
  const char* const end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, value);
  if (error == std::errc() && stopped == end) return;
  fmt::print(stderr, "{} is \"{}\"; it must be a number from 0 to 2^64 - 1\n", name, text);
  std::exit(2);
}

/// Sanitizers cost that much time; each operation then proves more.
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kSanitizerCost = 10;
#elif defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kSanitizerCost = 2;
#else
constexpr uint64_t kSanitizerCost = 1;
#endif

}  // namespace

ConformanceOptions options_from_environment(ConformanceOptions options) {
  options.operations = std::max<uint64_t>(1, options.operations / kSanitizerCost);
  take_number("USBD_CONFORMANCE_SEED", options.seed);
  take_number("USBD_CONFORMANCE_OPERATIONS", options.operations);
  return options;
}

std::string ConformanceReport::text() const {
  std::string text = fmt::format("{}: {} operations, seed {}:", subject, operations, seed);
  for (size_t i = 0; i < kOpKinds; ++i) {
    text += fmt::format(" {} {},", op_kind_name(static_cast<OpKind>(i)), by_kind[i]);
  }
  text += fmt::format(
      " refused {}, overlaps {}, reopens {}, crashes {}, {} MiB read, {} MiB written, digest "
      "{:016x}",
      refused, overlaps, reopens, crashes, bytes_read >> 20U, bytes_written >> 20U, fingerprint);
  if (!passed()) {
    text += fmt::format(
        "\n  FAILED: {}\n  once more: USBD_CONFORMANCE_SEED={} USBD_CONFORMANCE_OPERATIONS={}",
        failure, seed, operations_wanted);
  }
  return text;
}

ConformanceReport run_conformance(Subject& subject, const ConformanceOptions& options) {
  ConformanceOptions seeded = options;
  while (seeded.seed == 0) seeded.seed = SystemRng().next() >> 32U;
  return Runner(subject, seeded).run();
}

}  // namespace usbd::testing
