// SPDX-License-Identifier: Apache-2.0
//
// Runner: one run of the conformance suite over a subject. First what the volume holds is read,
// then the refusals are tried one by one, then come the random batches, with reopenings and crashes
// where the subject can, and at last every byte is read again, and once more after a reopening.

#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "conformance/generator.h"
#include "conformance/model.h"
#include "usbd/testing/conformance.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

class Runner {
 public:
  /// Lifetime: `subject` outlives the runner. Range: options.seed is not 0.
  Runner(Subject& subject, const ConformanceOptions& options);

  ConformanceReport run();

 private:
  /// A step went well (true), or the failure is in the report.
  using Step = bool;

  Step check_traits();
  Step load_contents();
  Step try_refusals();
  Step run_batches();
  Step run_batch();
  Step crash_under(std::vector<Operation>& batch);
  Step reopen();
  Step limit_log();
  Step finish();
  Step verify_all();

  /// Sends, judges and takes into the model.
  Step perform(std::vector<Operation>& batch);
  Step read_surely(std::vector<Operation>& reads);
  Step send(std::vector<Operation>& batch);
  Step judge(const std::vector<Operation>& batch);
  Step settle();
  void count(const std::vector<Operation>& batch);
  Step fail(std::string what);
  Step fail(const Finding& finding, const std::vector<Operation>& batch);
  [[nodiscard]] std::string history_of(uint64_t offset) const;

  Subject& subject_;
  const ConformanceOptions options_;
  const SubjectTraits traits_;
  const std::vector<ByteRange> windows_;
  Generator generator_;
  SeededRng rng_;
  Model model_;
  ConformanceReport report_;
  uint64_t next_reopen_ = 0;
  uint64_t next_crash_ = 0;
  /// The last operations, without their data; for messages.
  std::deque<Operation> history_;
};

}  // namespace usbd::testing
