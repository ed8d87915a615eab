// SPDX-License-Identifier: Apache-2.0
//
// Running many histories from one seed on, adding up what they count, and printing it: seeds and
// rate, each count, where crashes fell, and after how many histories a rule that was broken on
// purpose was found. The same for every kind of history.
//
// USBD_SIM_SEED: the first seed. USBD_SIM_HISTORIES: how many.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace usbd::sim {

/// A number in the environment, or `otherwise`.
uint64_t from_environment(const char* name, uint64_t otherwise);
uint64_t first_seed();
/// `otherwise`: unless the environment says how many; a tenth of it with a sanitizer.
uint64_t histories(uint64_t otherwise);

/// Makes the process keep what it frees: histories take and give back the same few pieces of
/// memory, and without this most of their time goes into asking the kernel for them. Any number of
/// calls.
void keep_freed_memory();

/// A count by name.
using Counted = std::pair<const char*, uint64_t>;

/// Prints `what`, how many were run and how fast, and each count that is not 0.
void print_run(const char* what, uint64_t run, std::chrono::steady_clock::duration took,
               std::span<const Counted> counts);
/// Prints each count and its share of all. Nothing if there is none.
void print_histogram(const char* what, std::span<const Counted> counts);

/// A member of a result that is added up.
template <typename R>
struct Count {
  const char* name;
  uint64_t R::* value;
};

/// Runs `one` for each seed until a promise is broken, and prints the sums of `counts`. A result
/// may have a function add_kinds() for what is counted by kind.
template <typename R>
R run_histories(const char* what, uint64_t how_many, const std::vector<Count<R>>& counts,
                const std::function<R(uint64_t seed)>& one) {
  keep_freed_memory();
  R sum;
  uint64_t run = 0;
  const auto start = std::chrono::steady_clock::now();
  while (run < how_many && sum.broken_promise.empty()) {
    R result = one(first_seed() + run++);
    sum.broken_promise = std::move(result.broken_promise);
    for (const Count<R>& count : counts) sum.*count.value += result.*count.value;
    if constexpr (requires { sum.add_kinds(result); }) sum.add_kinds(result);
  }
  std::vector<Counted> named;
  for (const Count<R>& count : counts) named.emplace_back(count.name, sum.*count.value);
  print_run(what, run, std::chrono::steady_clock::now() - start, named);
  return sum;
}

/// Runs histories with a rule broken until one of them says so, and prints after how many.
/// False: none did.
bool finds_broken_rule(const char* rule, uint64_t most,
                       const std::function<std::string(uint64_t seed)>& broken_promise);

}  // namespace usbd::sim
