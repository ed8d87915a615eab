// SPDX-License-Identifier: Apache-2.0
//
// KernelFolder on real directories. That syncs come in the right order cannot be seen from here;
// that their errors are reported can, on a filesystem that has none (procfs).

#include "async/kernel_folder.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/testing.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestLoop;

constexpr uid_t kNobody = 65534;

class KernelFolderTest : public ::testing::Test {
 public:
  ~KernelFolderTest() override { std::filesystem::remove_all(path_); }

 protected:
  KernelFolderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "usbd-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    folder_ = open_folder(path_);
  }

  std::unique_ptr<KernelFolder> open_folder(const std::string& path) {
    Result<std::unique_ptr<KernelFolder>> opened = KernelFolder::open_directory(path, loop_.pool());
    EXPECT_TRUE(opened.has_value()) << path;
    return opened ? *std::move(opened) : nullptr;
  }
  Result<std::unique_ptr<BlockFile>> open(const char* name, Folder::OpenHow how) {
    how.lock_wait = 40ms;
    return loop_.run(folder_->open(name, how));
  }
  void make(const char* name, const std::string& text = "") { std::ofstream(path_ / name) << text; }
  [[nodiscard]] std::string text_of(const char* name) const {
    std::ifstream file(path_ / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> names() {
    Result<std::vector<std::string>> found = loop_.run(folder_->list());
    EXPECT_TRUE(found.has_value());
    return found ? *found : std::vector<std::string>();
  }

  std::filesystem::path path_;
  TestLoop loop_;
  std::unique_ptr<KernelFolder> folder_;
};

TEST_F(KernelFolderTest, SaysWhichDirectoryIsMissing) {
  const auto opened = KernelFolder::open_directory(path_ / "absent", loop_.pool());
  ASSERT_FALSE(opened.has_value());
  EXPECT_TRUE(opened.error().is(Errc::kNotFound));
  EXPECT_THAT(opened.error().message(), HasSubstr("absent"));
}

TEST_F(KernelFolderTest, RefusesWhatIsNoDirectory) {
  make("file");
  EXPECT_FALSE(KernelFolder::open_directory(path_ / "file", loop_.pool()).has_value());
}

TEST_F(KernelFolderTest, MakesAFileAndFindsItAgain) {
  std::vector<std::byte> data(4096, std::byte(7));
  {
    auto file = open("new", {.create = CreatePolicy::kOnly, .new_size = 8192});
    ASSERT_TRUE(file.has_value()) << file.error().message();
    EXPECT_EQ(*(*file)->size(), 8192U);
    EXPECT_TRUE(loop_.run((*file)->write(4096, data, {})).has_value());
    EXPECT_TRUE(loop_.run((*file)->close()).has_value());
  }
  auto file = open("new", {});
  ASSERT_TRUE(file.has_value());
  std::vector<std::byte> found(4096);
  EXPECT_TRUE(loop_.run((*file)->read(4096, found)).has_value());
  EXPECT_EQ(found, data);
  EXPECT_TRUE(open("new", {.create = CreatePolicy::kOnly}).error().is(Errc::kExists));
}

TEST_F(KernelFolderTest, MakesAnEmptyFile) {
  const auto file = open("empty", {.create = CreatePolicy::kAuto});
  ASSERT_TRUE(file.has_value()) << file.error().message();
  EXPECT_EQ(*(*file)->size(), 0U);
  EXPECT_THAT(names(), ElementsAre("empty"));
}

TEST_F(KernelFolderTest, OpensDirectlyOrThroughThePageCache) {
  const auto file =
      open("direct", {.create = CreatePolicy::kOnly, .new_size = 65536, .direct = true});
  ASSERT_TRUE(file.has_value()) << file.error().message();
  EXPECT_THAT((*file)->block_size(), ::testing::AnyOf(1U, 512U, 4096U));
}

TEST_F(KernelFolderTest, FallsBackToThePageCacheWhereThereIsNoDirectIo) {
  if (!std::filesystem::exists("/proc/self/limits")) GTEST_SKIP() << "machine: no procfs";
  folder_ = open_folder("/proc/self");
  const auto file = open("limits", {.direct = true, .read_only = true});
  ASSERT_TRUE(file.has_value()) << file.error().message();
  EXPECT_EQ((*file)->block_size(), 1U);
}

TEST_F(KernelFolderTest, ReportsWhatNeitherWayOfOpeningTakes) {
  std::filesystem::create_directory(path_ / "directory");
  const auto file = open("directory", {.direct = true});
  ASSERT_FALSE(file.has_value());
  EXPECT_TRUE(file.error().is(Errc::kInvalid));
  EXPECT_THAT(file.error().message(), HasSubstr("neither a regular file"));
}

TEST_F(KernelFolderTest, SaysWhichFileIsMissing) {
  const auto missing = open("missing", {});
  EXPECT_TRUE(missing.error().is(Errc::kNotFound));
  EXPECT_THAT(missing.error().message(), HasSubstr("missing"));
  const auto read_only = open("missing", {.create = CreatePolicy::kAuto, .read_only = true});
  EXPECT_TRUE(read_only.error().is(Errc::kNotFound));
  EXPECT_TRUE(loop_.run(folder_->rename("missing", "other")).error().is(Errc::kNotFound));
}

TEST_F(KernelFolderTest, OpensReadOnlyBesideOtherReaders) {
  make("shared", "text");
  const auto first = open("shared", {.read_only = true});
  const auto second = open("shared", {.read_only = true});
  EXPECT_TRUE(first.has_value() && second.has_value());
  EXPECT_TRUE(open("shared", {}).error().is(Errc::kBusy));
}

TEST_F(KernelFolderTest, WaitsForAFileThatAnotherProcessHoldsAndOpensItWhenItIsFree) {
  make("held", "text");
  const std::string held = path_ / "held";
  std::array<int, 2> ready{};
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = ::open(held.c_str(), O_RDWR);
    if (flock(fd, LOCK_EX) == 0) static_cast<void>(!write(ready[1], "x", 1));
    for (;;) pause();
  }
  ASSERT_GT(child, 0);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const Nanos start = loop_.loop().now();
  const auto busy = open("held", {});
  EXPECT_TRUE(busy.error().is(Errc::kBusy)) << busy.error().message();
  EXPECT_GE(loop_.loop().now() - start, 40ms);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(open("held", {}).has_value());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(KernelFolderTest, RenamesInPlaceOfAnother) {
  make("from", "new");
  make("to", "old");
  ASSERT_TRUE(loop_.run(folder_->rename("from", "to")).has_value());
  EXPECT_EQ(text_of("to"), "new");
  EXPECT_THAT(names(), ElementsAre("to"));
}

TEST_F(KernelFolderTest, RemovesAFileAndDoesNotMindIfThereIsNone) {
  make("old");
  EXPECT_TRUE(loop_.run(folder_->remove("old")).has_value());
  EXPECT_TRUE(loop_.run(folder_->remove("old")).has_value());
  EXPECT_THAT(names(), ElementsAre());
}

TEST_F(KernelFolderTest, RemovesNoDirectory) {
  std::filesystem::create_directory(path_ / "directory");
  const Result<void> removed = loop_.run(folder_->remove("directory"));
  ASSERT_FALSE(removed.has_value());
  EXPECT_THAT(removed.error().message(), HasSubstr("cannot remove directory in"));
}

TEST_F(KernelFolderTest, ListsRegularFilesInOrder) {
  for (const char* const name : {"b", "c", "a"}) make(name);
  std::filesystem::create_directory(path_ / "d");
  std::filesystem::create_symlink("a", path_ / "e");
  EXPECT_THAT(names(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(names(), ElementsAre("a", "b", "c"));
}

TEST_F(KernelFolderTest, RefusesToListADirectoryOfTooManyEntries) {
  for (uint64_t i = 0; i < limits::kFolderEntriesMax; ++i) make(std::to_string(i).c_str());
  const auto found = loop_.run(folder_->list());
  ASSERT_FALSE(found.has_value());
  EXPECT_TRUE(found.error().is(Errc::kOverflow));
}

TEST_F(KernelFolderTest, NoticesThatThePathLeadsElsewhere) {
  make("file");
  const std::filesystem::path moved = path_.string() + "-moved";
  std::filesystem::rename(path_, moved);
  EXPECT_TRUE(open("file", {}).error().is(Errc::kNotFound));
  std::filesystem::create_directory(path_);
  make("file");
  const auto file = open("file", {});
  EXPECT_TRUE(file.error().is(Errc::kIo));
  EXPECT_THAT(file.error().message(), HasSubstr("another directory"));
  // Names are still those of the directory that was opened.
  EXPECT_TRUE(loop_.run(folder_->remove("file")).has_value());
  EXPECT_FALSE(std::filesystem::exists(moved / "file"));
  std::filesystem::remove_all(moved);
}

TEST_F(KernelFolderTest, ReportsADirectoryThatCannotBeSynced) {
  if (!std::filesystem::exists("/proc/self")) GTEST_SKIP() << "machine: no procfs";
  folder_ = open_folder("/proc/self");
  const Result<void> removed = loop_.run(folder_->remove("no such name"));
  ASSERT_FALSE(removed.has_value());
  EXPECT_THAT(removed.error().message(), HasSubstr("cannot sync the directory /proc/self"));
}

/// Its own rights are taken away for a moment, if it has any.
TEST_F(KernelFolderTest, SaysWhatItMayNotDo) {
  make("file", "text");
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(seteuid(kNobody), 0);
  } else {
    std::filesystem::permissions(path_, std::filesystem::perms::owner_read);
  }
  const Result<void> renamed = loop_.run(folder_->rename("file", "other"));
  const Result<void> removed = loop_.run(folder_->remove("file"));
  const auto opened = open("file", {});
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  } else {
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
  }
  EXPECT_TRUE(renamed.error().is(Errc::kAccess)) << renamed.error().message();
  EXPECT_TRUE(removed.error().is(Errc::kAccess)) << removed.error().message();
  EXPECT_FALSE(opened.has_value());
  EXPECT_EQ(text_of("file"), "text");
}

}  // namespace
}  // namespace usbd
