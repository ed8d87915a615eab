// SPDX-License-Identifier: Apache-2.0
//
// The forms of a log line.

#include "daemon/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace usbd::daemon {
namespace {

using std::chrono::milliseconds;
using testing::MatchesRegex;

const std::chrono::system_clock::time_point kTime{milliseconds(1'700'000'000'042)};

TEST(LogLine, OfTextHasTimeLevelAndMessage) {
  EXPECT_THAT(log_line(LogFormat::kText, log::Level::kWarning, "hello", kTime),
              MatchesRegex("2023-11-1[45]T..:..:20\\.042[+-].... warning: hello\n"));
}

TEST(LogLine, OfJournalHasTheSyslogNumber) {
  EXPECT_EQ(log_line(LogFormat::kJournal, log::Level::kInfo, "a", kTime), "<6>a\n");
  EXPECT_EQ(log_line(LogFormat::kJournal, log::Level::kWarning, "a", kTime), "<4>a\n");
  EXPECT_EQ(log_line(LogFormat::kJournal, log::Level::kError, "a", kTime), "<3>a\n");
  EXPECT_EQ(log_line(LogFormat::kJournal, log::Level::kDebug, "a", kTime), "<7>a\n");
}

TEST(LogLine, OfJsonIsAnObject) {
  const std::string line = log_line(LogFormat::kJson, log::Level::kError, "a \"b\"\n\xff", kTime);
  const nlohmann::json parsed = nlohmann::json::parse(line);
  EXPECT_EQ(parsed["level"], "error");
  EXPECT_EQ(parsed["message"], "a \"b\"\n\xef\xbf\xbd");
  EXPECT_EQ(line.back(), '\n');
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(LogLine, StaysOneLineWhateverTheMessage) {
  EXPECT_EQ(log_line(LogFormat::kJournal, log::Level::kInfo, "a\n<3>b\x1b[2J", kTime),
            "<6>a\\n<3>b\\x1b[2J\n");
}

TEST(Logging, WritesToStderrInTheForm) {
  set_up_logging(LogFormat::kJournal);
  testing::internal::CaptureStderr();
  log::info("{} {{}}", "braces {} stay");
  log::debug("dropped");
  log::error("bad");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "<6>braces {} stay {}\n<3>bad\n");
  set_up_logging(LogFormat::kText);
}

}  // namespace
}  // namespace usbd::daemon
