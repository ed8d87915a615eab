// SPDX-License-Identifier: Apache-2.0
//
// LocalStore beyond what every kind must do (tests/store): its directory and what others do to it,
// its locks, and a disk that fails.

#include "objects/local/local_store.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/scope.h"
#include "objects/local/testing.h"

namespace usbd::objects {
namespace {

namespace fs = std::filesystem;
using testing::FaultCalls;
using testing::LocalFolder;
using usbd::testing::TestLoop;
using Call = FaultCalls::Call;
using namespace std::chrono_literals;

class LocalStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }
  void TearDown() override { close(); }

  void open(FileCalls* calls = nullptr, bool read_only = false) {
    close();
    Result<std::unique_ptr<LocalStore>> opened = folder_.open(loop_, rng_, calls, read_only);
    ASSERT_TRUE(opened) << opened.error().message();
    store_ = *std::move(opened);
  }
  void close() {
    if (store_) loop_.run(store_->close());
    store_.reset();
  }
  Result<std::string> put(const std::string& name, size_t size = 100,
                          Condition condition = Condition::always(), CallLimits limits = {}) {
    const std::vector<std::byte> data(size, std::byte{7});
    return loop_.run(store_->put(name, data, std::move(condition), std::move(limits)));
  }
  Result<Fetched> get(const std::string& name) {
    return loop_.run(store_->get(name, Part::whole(UINT64_MAX), CallLimits()));
  }
  Result<void> remove(const std::string& name, CallLimits limits = {}) {
    return loop_.run(store_->remove(name, std::move(limits)));
  }
  std::vector<std::string> names() {
    const Result<ListPage> page = loop_.run(store_->list("", "", kListPageMax, CallLimits()));
    EXPECT_TRUE(page) << (page ? "" : page.error().message());
    std::vector<std::string> all;
    if (!page) return all;
    for (const ObjectInfo& info : page->objects) all.push_back(info.name);
    return all;
  }
  /// Expects the error `code`, with `text` in its message.
  template <typename T>
  static void expect_error(const Result<T>& result, Errc code, const std::string& text) {
    ASSERT_FALSE(result.has_value());
    EXPECT_TRUE(result.error().is(code)) << result.error().message();
    EXPECT_NE(result.error().message().find(text), std::string::npos) << result.error().message();
  }
  Result<std::unique_ptr<LocalStore>> open_at(std::string path, std::string container,
                                              bool read_only = false) {
    LocalStore::Options options{
        .path = std::move(path), .container = std::move(container), .read_only = read_only};
    return loop_.run(LocalStore::open(std::move(options), loop_.pool(), rng_));
  }

  LocalFolder folder_;
  SystemRng rng_;
  TestLoop loop_;
  std::unique_ptr<LocalStore> store_;
};

// --- opening ------------------------------------------------------------------------------------

TEST_F(LocalStoreTest, SaysWhereItIs) {
  EXPECT_EQ(store_->name(), "local://" + folder_.path() + "/vol");
  EXPECT_TRUE(store_->abilities().put_if_absent && store_->abilities().put_if_matches);
}

TEST_F(LocalStoreTest, WantsADirectoryThatIsThere) {
  expect_error(open_at(folder_.path() + "/none", "vol"), Errc::kNotFound, "make it first");
  std::ofstream(folder_.path() + "/file") << "x";
  expect_error(open_at(folder_.path() + "/file", "vol"), Errc::kInvalid, "/file");
  EXPECT_TRUE(open_at(folder_.path() + "/", "other"));
  EXPECT_TRUE(fs::is_directory(folder_.path() + "/other"));
}

TEST_F(LocalStoreTest, RefusesContainersThatAreNoFoldersBelowIt) {
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string(".."), std::string(".usbd"),
        std::string("a b"), std::string(300, 'x')}) {
    expect_error(open_at(folder_.path(), name), Errc::kInvalid, "cannot be the name");
  }
  std::ofstream(folder_.path() + "/file") << "x";
  expect_error(open_at(folder_.path(), "file"), Errc::kInvalid, "is no folder");
  fs::create_directory_symlink("/tmp", folder_.path() + "/link");
  expect_error(open_at(folder_.path(), "link"), Errc::kInvalid, "is no folder");
}

TEST_F(LocalStoreTest, ChangesNothingWhenOpenedForReading) {
  ASSERT_TRUE(put("a"));
  expect_error(open_at(folder_.path(), "none", true), Errc::kNotFound, "none");
  EXPECT_FALSE(fs::exists(folder_.path() + "/none"));
  fs::create_directory(folder_.path() + "/bare");
  const Result<std::unique_ptr<LocalStore>> bare = open_at(folder_.path(), "bare", true);
  ASSERT_TRUE(bare);
  EXPECT_TRUE(fs::is_empty(folder_.path() + "/bare"));
  open(nullptr, true);
  EXPECT_TRUE(get("a"));
  expect_error(put("b"), Errc::kReadOnly, "b: ");
  expect_error(remove("a"), Errc::kReadOnly, "a: ");
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

TEST_F(LocalStoreTest, RemovesWhatDeadWritersLeftAndNothingElse) {
  std::ofstream(folder_.hidden() / "put-0123") << "dead";
  std::ofstream(folder_.hidden() / "put-4567") << "alive";
  std::ofstream(folder_.hidden() / "notes") << "of the owner";
  fs::create_directory(folder_.hidden() / "put-folder");
  const UniqueFd writer(::open((folder_.hidden() / "put-4567").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(flock(writer.get(), LOCK_EX), 0);
  open();
  EXPECT_FALSE(fs::exists(folder_.hidden() / "put-0123"));
  EXPECT_TRUE(fs::exists(folder_.hidden() / "put-4567"));
  EXPECT_TRUE(fs::exists(folder_.hidden() / "notes"));
  EXPECT_TRUE(names().empty());
}

// --- its directory ------------------------------------------------------------------------------

TEST_F(LocalStoreTest, KeepsObjectsInFilesThatReadLikeTheirNames) {
  ASSERT_TRUE(put("vol/d/1/2", 1000));
  const fs::path file = folder_.container() / "vol" / "d" / "1" / "2,obj";
  EXPECT_EQ(fs::file_size(file), 1000U + sizeof(ObjectTrailer));
  struct stat info{};
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(folder_.left_over(), 0U);
}

TEST_F(LocalStoreTest, RemovesFoldersThatGotEmpty) {
  ASSERT_TRUE(put("a/b/c/d"));
  ASSERT_TRUE(put("a/x"));
  ASSERT_TRUE(remove("a/b/c/d"));
  EXPECT_FALSE(fs::exists(folder_.container() / "a" / "b"));
  EXPECT_TRUE(fs::exists(folder_.container() / "a"));
  ASSERT_TRUE(remove("a/x"));
  EXPECT_FALSE(fs::exists(folder_.container() / "a"));
  EXPECT_TRUE(put("a/b/c/d"));
  EXPECT_TRUE(get("a/b/c/d"));
}

TEST_F(LocalStoreTest, SurvivesBeingCopied) {
  const Result<std::string> tag = put("a/b", 5000);
  ASSERT_TRUE(tag);
  fs::copy(folder_.container(), folder_.path() + "/copy", fs::copy_options::recursive);
  const Result<std::unique_ptr<LocalStore>> copy = open_at(folder_.path(), "copy");
  ASSERT_TRUE(copy);
  const Result<Fetched> got = loop_.run((*copy)->get("a/b", Part::whole(5000), CallLimits()));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->tag, *tag);
}

TEST_F(LocalStoreTest, TakesNothingElseForAnObject) {
  ASSERT_TRUE(put("a"));
  std::ofstream(folder_.container() / "README") << "not an object";
  std::ofstream(folder_.container() / "b c,obj") << "not a name";
  fs::create_directories(folder_.container() / "d,obj");
  fs::create_symlink(folder_.file_of("a"), folder_.file_of("link"));
  ASSERT_EQ(mkfifo(folder_.file_of("pipe").c_str(), 0600), 0);
  std::ofstream(folder_.file_of("foreign")) << std::string(1000, 'x');
  std::ofstream(folder_.file_of("short")) << "x";
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "foreign", "short"}));
  expect_error(get("d"), Errc::kDamaged, "d: is not a regular file");
  expect_error(get("link"), Errc::kIo, "symbolic links are not followed");
  expect_error(get("pipe"), Errc::kDamaged, "pipe: is not a regular file");
  expect_error(get("foreign"), Errc::kDamaged, "is not usbd's");
  expect_error(get("short"), Errc::kDamaged, "only 1 bytes are left");
  // What is damaged can be replaced or removed; a link is replaced itself.
  for (const char* name : {"foreign", "short", "link", "pipe"}) EXPECT_TRUE(put(name)) << name;
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder_.file_of("link"))));
  EXPECT_EQ(get("a")->data.size(), 100U);
  EXPECT_FALSE(put("d"));
  EXPECT_EQ(folder_.left_over(), 0U);
}

TEST_F(LocalStoreTest, LeavesItsDirectoryThroughNoLink) {
  LocalFolder outside;
  fs::create_directory_symlink(outside.path(), folder_.container() / "way");
  fs::create_directories(outside.path() + "/deep");
  std::ofstream(outside.path() + "/x,obj") << std::string(100, 'x');
  expect_error(put("way/y"), Errc::kIo, "symbolic links are not followed");
  expect_error(put("way/deep/y"), Errc::kIo, "symbolic links are not followed");
  expect_error(get("way/x"), Errc::kIo, "symbolic links are not followed");
  expect_error(remove("way/x"), Errc::kIo, "symbolic links are not followed");
  EXPECT_TRUE(names().empty());
  EXPECT_TRUE(fs::exists(outside.path() + "/x,obj"));
  EXPECT_FALSE(fs::exists(outside.path() + "/y,obj"));
  fs::remove_all(folder_.hidden());
  fs::create_directory_symlink(outside.path(), folder_.hidden());
  expect_error(put("z"), Errc::kIo, "symbolic links are not followed");
  EXPECT_FALSE(open_at(folder_.path(), "vol"));
}

TEST_F(LocalStoreTest, SaysSoWhenItsDirectoryIsGone) {
  ASSERT_TRUE(put("a/b"));
  fs::remove_all(folder_.container());
  for (const char* name : {"a/b", "c"}) {
    expect_error(get(name), Errc::kIo, "was removed while it was open");
    expect_error(put(name), Errc::kIo, "was removed while it was open");
    expect_error(remove(name), Errc::kIo, "was removed while it was open");
  }
  expect_error(loop_.run(store_->list("", "", 10, CallLimits())), Errc::kIo, "was removed");
}

TEST_F(LocalStoreTest, GoesOnWithoutItsHiddenFolder) {
  ASSERT_TRUE(put("a"));
  fs::remove_all(folder_.hidden());
  EXPECT_TRUE(put("b"));
  EXPECT_TRUE(remove("a"));
}

// --- its locks ----------------------------------------------------------------------------------

class LockHolder {
 public:
  explicit LockHolder(const fs::path& hidden)
      : file_(::open((hidden / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    EXPECT_EQ(flock(file_.get(), LOCK_EX), 0);
  }
  void release() { file_.reset(); }

 private:
  UniqueFd file_;
};

TEST_F(LocalStoreTest, EndsACallThatOthersKeepFromTheLock) {
  ASSERT_TRUE(put("a"));
  LockHolder holder(folder_.hidden());
  expect_error(put("b", 100, Condition::always(), {.timeout = 50ms, .stop = {}}), Errc::kTimedOut,
               "has held .usbd/lock");
  expect_error(remove("a", {.timeout = 50ms, .stop = {}}), Errc::kTimedOut, "has held .usbd/lock");
  EXPECT_EQ(folder_.left_over(), 0U);
  EXPECT_TRUE(get("a")) << "readers need no lock";
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  EXPECT_TRUE(folder_.open(loop_, rng_)) << "nor does opening";
  holder.release();
  EXPECT_TRUE(put("b"));
}

TEST_F(LocalStoreTest, WaitsForTheLockAndStopsWaiting) {
  LockHolder holder(folder_.hidden());
  std::stop_source stop;
  std::jthread other([&] {
    std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  expect_error(put("a", 100, Condition::always(), {.timeout = 60s, .stop = stop.get_token()}),
               Errc::kCanceled, "a: ");
  other.join();
  other = std::jthread([&] {
    std::this_thread::sleep_for(50ms);
    holder.release();
  });
  EXPECT_TRUE(put("a"));
}

// --- a disk that fails --------------------------------------------------------------------------

class FailingDiskTest : public LocalStoreTest {
 protected:
  void SetUp() override { open(&calls_); }
  FaultCalls calls_;
};

TEST_F(FailingDiskTest, FailsAPutWhoseContentsDoNotGetThereAndLeavesNothing) {
  ASSERT_TRUE(put("a"));
  const std::string tag = get("a")->tag;
  const std::pair<int, Errc> errors[] = {{ENOSPC, Errc::kNoSpace}, {EDQUOT, Errc::kNoSpace},
                                         {EROFS, Errc::kReadOnly}, {EIO, Errc::kIo},
                                         {EFBIG, Errc::kInvalid},  {EACCES, Errc::kAccess},
                                         {EPERM, Errc::kAccess},   {ENOMEM, Errc::kAgain},
                                         {ENODEV, Errc::kIo},      {ETIMEDOUT, Errc::kTimedOut}};
  for (const auto& [number, code] : errors) {
    for (const Call call : {Call::kWrite, Call::kDataSync, Call::kRename}) {
      calls_.fail(call, number);
      expect_error(put("a", 5000), code, "a: cannot ");
      EXPECT_TRUE(calls_.all_failed());
      EXPECT_EQ(folder_.left_over(), 0U);
      EXPECT_EQ(get("a")->tag, tag);
    }
    calls_.fail(Call::kWrite, number, 1);  // the trailer
    expect_error(put("a", 5000), code, "a: cannot write");
    EXPECT_EQ(get("a")->tag, tag);
  }
}

TEST_F(FailingDiskTest, NamesTheReasonThatHasNoCodeOfItsOwn) {
  calls_.fail(Call::kWrite, EDQUOT);
  expect_error(put("a"), Errc::kNoSpace, "Disk quota exceeded");
}

TEST_F(FailingDiskTest, SaysThatAPutMayBeLostIfItsFolderIsNotSynced) {
  ASSERT_TRUE(put("d/a"));
  calls_.fail(Call::kFolderSync, EIO);
  expect_error(put("d/b"), Errc::kIo, "cannot sync its folder");
  EXPECT_TRUE(calls_.all_failed());
  EXPECT_TRUE(get("d/b")) << "it has been made: the error is one of those that leave that open";
  calls_.fail(Call::kFolderSync, EIO);
  expect_error(remove("d/b"), Errc::kIo, "cannot sync the folder it was in");
  EXPECT_TRUE(remove("d/b"));
}

TEST_F(FailingDiskTest, FailsAPutWhoseFoldersAreNotSynced) {
  calls_.fail(Call::kFolderSync, EIO);
  expect_error(put("new/a"), Errc::kIo, "cannot sync the folders on the way to it");
  EXPECT_FALSE(fs::exists(folder_.file_of("new/a")));
  EXPECT_TRUE(put("new/a"));
}

TEST_F(FailingDiskTest, SyncsTheWayToAnObjectOnce) {
  ASSERT_TRUE(put("d/e/a"));
  int before = calls_.calls(Call::kFolderSync);
  ASSERT_TRUE(put("d/e/b"));
  EXPECT_EQ(calls_.calls(Call::kFolderSync), before + 1) << "the folder of the object alone";
  // Another process cannot know whether the one that made the folders lived to sync them.
  open(&calls_);
  before = calls_.calls(Call::kFolderSync);
  ASSERT_TRUE(put("d/e/c"));
  EXPECT_EQ(calls_.calls(Call::kFolderSync), before + 3);
  // Nor does a folder that was made again count as synced.
  fs::remove_all(folder_.container() / "d");
  fs::create_directories(folder_.container() / "d" / "e");
  before = calls_.calls(Call::kFolderSync);
  ASSERT_TRUE(put("d/e/d"));
  EXPECT_EQ(calls_.calls(Call::kFolderSync), before + 3);
}

TEST_F(FailingDiskTest, SyncsAfterARemovalThatFindsNothing) {
  // The removal before may have failed between its two steps.
  ASSERT_TRUE(put("d/a"));
  ASSERT_TRUE(put("d/b"));
  const int before = calls_.calls(Call::kFolderSync);
  ASSERT_TRUE(remove("d/none"));
  ASSERT_TRUE(remove("none/none"));
  EXPECT_EQ(calls_.calls(Call::kFolderSync), before + 2);
}

TEST_F(FailingDiskTest, GoesOnAfterShortAndInterruptedCalls) {
  calls_.fail(Call::kWrite, 0, 0, 3);
  ASSERT_TRUE(put("a", 100));
  calls_.fail(Call::kWrite, EINTR, 0, 20);
  ASSERT_TRUE(put("b", 100));
  calls_.fail(Call::kRead, 0, 1, 3);
  EXPECT_TRUE(get("a"));
  calls_.fail(Call::kRead, EINTR, 1, 20);
  const Result<Fetched> got = get("b");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->data, std::vector<std::byte>(100, std::byte{7}));
  calls_.fail(Call::kWrite, EINTR, 0, 1'000'000);
  expect_error(put("c", 100), Errc::kAgain, "cannot write its contents");
}

TEST_F(FailingDiskTest, FailsAGetThatCannotRead) {
  ASSERT_TRUE(put("a"));
  calls_.fail(Call::kRead, EIO);
  expect_error(get("a"), Errc::kIo, "a: cannot read it");
  calls_.fail(Call::kRead, EIO, 1);
  expect_error(get("a"), Errc::kIo, "a: cannot read it");
  calls_.fail(Call::kRead, EIO);
  expect_error(put("a", 100, Condition::matches("x")), Errc::kIo, "a: cannot read it");
  EXPECT_EQ(folder_.left_over(), 0U);
}

TEST_F(FailingDiskTest, RefusesAFilesystemWithoutLocks) {
  for (const int number : {EOPNOTSUPP, ENOLCK, ENOSYS}) {
    calls_.fail(Call::kLock, number);
    expect_error(folder_.open(loop_, rng_, &calls_), Errc::kNotSupported, "without locks");
  }
  calls_.fail(Call::kLock, EIO);
  expect_error(put("a"), Errc::kIo, "lock");
  calls_.fail(Call::kLock, EIO);
  expect_error(remove("a"), Errc::kIo, "lock");
  calls_.fail(Call::kLock, EINTR, 0, 3);
  EXPECT_TRUE(put("a"));
  EXPECT_EQ(folder_.left_over(), 0U);
}

TEST_F(FailingDiskTest, CannotBeOpenedWhereTheContainerIsNotSynced) {
  calls_.fail(Call::kFolderSync, EIO);
  EXPECT_FALSE(folder_.open(loop_, rng_, &calls_));
}

// --- many objects -------------------------------------------------------------------------------

TEST_F(LocalStoreTest, ListsAFolderLargerThanWhatItKeepsInMemory) {
  const size_t count = limits::kListWindow * 2 + 1000;
  fs::create_directories(folder_.container() / "d");
  const UniqueFd folder(::open((folder_.container() / "d").c_str(), O_RDONLY | O_CLOEXEC));
  for (size_t i = 0; i < count; ++i) {
    const UniqueFd file(openat(folder.get(), fmt::format("{:08},obj", i * 7919 % count).c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    ASSERT_TRUE(file);
  }
  std::string after;
  size_t seen = 0;
  for (bool more = true; more;) {
    const Result<ListPage> page = loop_.run(store_->list("d/", after, kListPageMax, CallLimits()));
    ASSERT_TRUE(page) << page.error().message();
    for (const ObjectInfo& info : page->objects) {
      ASSERT_EQ(info.name, fmt::format("d/{:08}", seen));
      ++seen;
    }
    more = page->more;
    if (!more) break;
    ASSERT_EQ(page->objects.size(), kListPageMax);
    after = page->objects.back().name;
  }
  EXPECT_EQ(seen, count);
}

TEST_F(LocalStoreTest, LeavesOutOfAPageWhatWasRemovedSinceTheOneBefore) {
  for (const char* name : {"a", "b", "c", "d"}) ASSERT_TRUE(put(name));
  Result<ListPage> page = loop_.run(store_->list("", "", 1, CallLimits()));
  ASSERT_TRUE(page && page->more);
  ASSERT_TRUE(remove("b"));
  ASSERT_TRUE(remove("c"));
  page = loop_.run(store_->list("", "a", 1, CallLimits()));
  ASSERT_TRUE(page);
  ASSERT_EQ(page->objects.size(), 1U) << "a page without names could not be gone on from";
  EXPECT_EQ(page->objects[0].name, "d");
  EXPECT_FALSE(page->more);
}

TEST_F(LocalStoreTest, EntersNoFolderDeeperThanNamesGo) {
  ASSERT_TRUE(put("a"));
  fs::path deep = folder_.container();
  for (int i = 0; i < 8; ++i) deep /= std::string(100, 'd');
  fs::create_directories(deep);
  std::ofstream(deep / "x,obj") << "out of reach";
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace usbd::objects
