// SPDX-License-Identifier: Apache-2.0
//
// In the conformance tests devices fail on purpose, thousands of times: what they log says nothing.
// Linked into the tests only.

#include <gtest/gtest.h>

#include "base/log.h"

namespace usbd::testing {
namespace {

class QuietLog final : public ::testing::Environment {
 public:
  void SetUp() override {
    log::set_sink([](log::Level, std::string_view) {});
  }
};

[[maybe_unused]] const ::testing::Environment* const kQuiet =
    ::testing::AddGlobalTestEnvironment(new QuietLog);

}  // namespace
}  // namespace usbd::testing

/// Two requests for one range may be in flight: what a read then returns is either's, byte by byte,
/// and the model checks that. In the memory of a MemoryDevice that is a race by design, as it is
/// between a guest's I/O and its memory; nothing else of it is excused.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the sanitizer's name
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:usbd::MemoryDevice::load\n"
         "race:usbd::MemoryDevice::store\n"
         "race:usbd::MemoryDevice::zero_in_place\n"
         "race:usbd::MemoryDevice::zero_if_written\n"
         "race:copy_direct\n";
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
