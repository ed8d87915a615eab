// SPDX-License-Identifier: Apache-2.0
//
// Whose pid file is written, replaced, left alone and removed.

#include "daemon/pidfile.h"

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/text_file.h"

namespace usbd::daemon {
namespace {

class PidfileTest : public testing::Test {
 public:
  ~PidfileTest() override { std::filesystem::remove_all(dir); }

 protected:
  PidfileTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "pidfile_test.XXXXXX";
    dir = ::mkdtemp(pattern.data());
    path = dir + "/daemon.pid";
  }

  std::string dir;
  std::string path;
};

TEST_F(PidfileTest, HoldsTheProcessIdAndGoesAway) {
  {
    const Result<std::unique_ptr<Pidfile>> file = Pidfile::create(path);
    ASSERT_TRUE(file);
    EXPECT_EQ(*read_text_file(path), std::to_string(::getpid()) + "\n");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::is_empty(dir));
}

TEST_F(PidfileTest, ReplacesWhatNamesNoRunningProcess) {
  for (const char* stale : {"4194304\n", "nonsense", ""}) {
    std::ofstream(path) << stale;
    EXPECT_TRUE(Pidfile::create(path)) << stale;
  }
}

TEST_F(PidfileTest, RefusesTheFileOfAnotherProcess) {
  std::ofstream(path) << ::getppid() << "\n";
  const Result<std::unique_ptr<Pidfile>> file = Pidfile::create(path);
  ASSERT_FALSE(file);
  EXPECT_TRUE(file.error().is(Errc::kBusy));
  EXPECT_EQ(*read_text_file(path), std::to_string(::getppid()) + "\n");
}

TEST_F(PidfileTest, LeavesAFileThatIsNoLongerItsOwn) {
  {
    const Result<std::unique_ptr<Pidfile>> file = Pidfile::create(path);
    ASSERT_TRUE(file);
    std::ofstream(path) << "1\n";
  }
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(PidfileTest, SaysWhatKeptItFromBeingWritten) {
  const Result<std::unique_ptr<Pidfile>> file = Pidfile::create(dir + "/none/daemon.pid");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message(), testing::HasSubstr("No such file"));
}

}  // namespace
}  // namespace usbd::daemon
