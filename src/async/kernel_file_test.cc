// SPDX-License-Identifier: Apache-2.0
//
// KernelFile: on real files with and without io_uring, and, for what a healthy kernel does not do
// on demand, on a SimLoop whose file operations are played by the test.

#include "async/kernel_file.h"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <set>
#include <vector>

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/sim_loop.h"
#include "async/testing.h"
#include "base/random.h"
#include "base/unique_fd.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using testing::TestLoop;

constexpr uint64_t kMiB = 1U << 20;
constexpr uint64_t kTiB = uint64_t{1} << 40;

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "usbd-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string file(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> random_bytes(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  SeededRng rng(seed);
  rng.fill(bytes);
  return bytes;
}

KernelFile::Options options_for(const std::string& path, uint64_t new_size) {
  KernelFile::Options options;
  options.path = path;
  options.create = CreatePolicy::kAuto;
  options.new_size = new_size;
  options.lock_wait = 0ms;
  return options;
}

struct stat stat_of(const std::string& path) {
  struct stat info{};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  return info;
}

/// With io_uring and without.
class KernelFileOnLoop : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<KernelFile> open(const KernelFile::Options& options) {
    Result<std::unique_ptr<KernelFile>> file = loop_.run(KernelFile::open(options));
    EXPECT_TRUE(file.has_value()) << (file ? "" : file.error().message());
    return file ? *std::move(file) : nullptr;
  }
  Error error_of_open(const KernelFile::Options& options) {
    const Result<std::unique_ptr<KernelFile>> file = loop_.run(KernelFile::open(options));
    EXPECT_FALSE(file.has_value());
    return file ? Error(Errc::kIo, "none") : file.error();
  }
  void expect_contents(KernelFile& file, uint64_t offset, Bytes expected) {
    std::vector<std::byte> found(expected.size());
    const Result<void> read = loop_.run(file.read(offset, found));
    ASSERT_TRUE(read.has_value()) << read.error().message();
    EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin()));
  }

  TempDir dir_;
  TestLoop loop_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Uring, KernelFileOnLoop, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Uring" : "Pool"; });

TEST_P(KernelFileOnLoop, MakesATerabyteAtOnceAndSparse) {
  const std::string path = dir_.file("new");
  const Nanos start = loop_.loop().now();
  const auto file = open(options_for(path, kTiB));
  EXPECT_LT(loop_.loop().now() - start, 1s);
  EXPECT_TRUE(file->created());
  const struct stat info = stat_of(path);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), kTiB);
  EXPECT_LT(info.st_blocks, 64);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_P(KernelFileOnLoop, ForgetsNothingThatIsOnTheDiskOrOnItsWay) {
  const auto file = open(options_for(dir_.file("kept"), 1 * kMiB));
  const std::vector<std::byte> data = random_bytes(100'000, 1);
  const std::vector<std::byte> more = random_bytes(100'000, 2);
  ASSERT_TRUE(loop_.run(file->write(5'000, data, {})).has_value());
  ASSERT_TRUE(loop_.run(file->datasync()).has_value());
  ASSERT_TRUE(loop_.run(file->write(300'000, more, {})).has_value());
  file->forget_unwritten();
  expect_contents(*file, 5'000, data);
  expect_contents(*file, 300'000, more);
  ASSERT_TRUE(loop_.run(file->close()).has_value());
}

TEST_P(KernelFileOnLoop, KeepsAnExistingFileAsItIs) {
  const std::string path = dir_.file("old");
  const std::vector<std::byte> data = random_bytes(10'000, 1);
  {
    const auto file = open(options_for(path, 20'000));
    ASSERT_TRUE(loop_.run(file->write(5'000, data, {})).has_value());
    ASSERT_TRUE(loop_.run(file->close()).has_value());
  }
  const auto file = open(options_for(path, 1 * kMiB));
  EXPECT_FALSE(file->created());
  EXPECT_EQ(*file->size(), 20'000U);
  expect_contents(*file, 5'000, data);
}

TEST_P(KernelFileOnLoop, FollowsTheCreatePolicy) {
  KernelFile::Options options = options_for(dir_.file("policy"), kMiB);
  options.create = CreatePolicy::kNever;
  EXPECT_TRUE(error_of_open(options).is(Errc::kNotFound));
  EXPECT_FALSE(std::filesystem::exists(options.path));
  options.create = CreatePolicy::kOnly;
  EXPECT_TRUE(open(options)->created());
  EXPECT_TRUE(error_of_open(options).is(Errc::kExists));
}

TEST_P(KernelFileOnLoop, CompletesAnEmptyFileOfAnInterruptedStart) {
  const std::string path = dir_.file("empty");
  ::close(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
  const auto file = open(options_for(path, kMiB));
  EXPECT_TRUE(file->created());
  EXPECT_EQ(*file->size(), kMiB);
}

TEST_P(KernelFileOnLoop, RefusesASizeThatTheFilesystemLacksAndLeavesNoFile) {
  const KernelFile::Options options = options_for(dir_.file("huge"), UINT64_MAX - 4095);
  EXPECT_TRUE(error_of_open(options).is(Errc::kInvalid));
  EXPECT_FALSE(std::filesystem::exists(options.path));
}

TEST_P(KernelFileOnLoop, RefusesWhatIsNoFile) {
  EXPECT_TRUE(error_of_open(options_for(dir_.file("."), kMiB)).is(Errc::kInvalid));
  EXPECT_TRUE(error_of_open(options_for("/dev/null", kMiB)).is(Errc::kInvalid));
  EXPECT_TRUE(error_of_open(options_for(dir_.file("no/such/dir"), kMiB)).is(Errc::kNotFound));
}

TEST_P(KernelFileOnLoop, RefusesASecondOpeningAndNamesTheHolder) {
  const KernelFile::Options options = options_for(dir_.file("locked"), kMiB);
  const auto file = open(options);
  const Error error = error_of_open(options);
  EXPECT_TRUE(error.is(Errc::kBusy));
  struct statfs filesystem{};
  ASSERT_EQ(statfs(options.path.c_str(), &filesystem), 0);
  // Where stat() and /proc/locks call the same filesystem by two numbers, the holder stays unknown.
  const bool known = filesystem.f_type != BTRFS_SUPER_MAGIC;
  const std::string holder = "process " + std::to_string(getpid());
  EXPECT_THAT(error.message(), HasSubstr(known ? holder : "in use by another process"));
  EXPECT_THAT(error.message(), HasSubstr(options.path));
}

Task<void> close_after(KernelFile& file, Nanos delay) {
  co_await Loop::current().sleep_for(delay);
  EXPECT_TRUE((co_await file.close()).has_value());
}

Task<Result<void>> open_while_closing(KernelFile& holder, KernelFile::Options options) {
  Scope scope;
  scope.spawn(close_after(holder, 30ms));
  Result<std::unique_ptr<KernelFile>> file = co_await KernelFile::open(std::move(options));
  co_await scope.close();
  co_return file ? Result<void>() : Result<void>(file.error());
}

TEST_P(KernelFileOnLoop, WaitsForAHolderThatLetsGo) {
  KernelFile::Options options = options_for(dir_.file("handover"), kMiB);
  const auto holder = open(options);
  options.lock_wait = 20s;
  EXPECT_TRUE(loop_.run(open_while_closing(*holder, options)).has_value());
}

TEST_P(KernelFileOnLoop, LetsReadersShareButNotWithAWriter) {
  KernelFile::Options options = options_for(dir_.file("shared"), kMiB);
  {
    open(options);
  }
  KernelFile::Options reading = options;
  reading.read_only = true;
  const auto first = open(reading);
  const auto second = open(reading);
  EXPECT_TRUE(error_of_open(options).is(Errc::kBusy));
}

TEST_P(KernelFileOnLoop, ShowsAFileThatAnotherHoldsToWhoAsksForNoLock) {
  const KernelFile::Options options = options_for(dir_.file("looked-at"), kMiB);
  const auto holder = open(options);
  const std::vector<std::byte> data = random_bytes(4096, 5);
  ASSERT_TRUE(loop_.run(holder->write(0, data, {})).has_value());
  KernelFile::Options looking = options;
  looking.read_only = true;
  EXPECT_TRUE(error_of_open(looking).is(Errc::kBusy));
  looking.unlocked = true;
  const auto looker = open(looking);
  std::vector<std::byte> seen(4096);
  ASSERT_TRUE(loop_.run(looker->read(0, seen)).has_value());
  EXPECT_EQ(seen, data);
  // Nor does it keep anybody out.
  EXPECT_TRUE(loop_.run(holder->close()).has_value());
  EXPECT_NE(open(options), nullptr);
}

TEST_P(KernelFileOnLoop, MovesLargeRequestsWhole) {
  const auto file = open(options_for(dir_.file("large"), 0));
  const std::vector<std::byte> data = random_bytes(5 * kMiB + 123, 2);
  ASSERT_TRUE(loop_.run(file->write(77, data, {})).has_value());
  ASSERT_TRUE(loop_.run(file->write(0, Bytes(data).first(50), {.fua = true})).has_value());
  ASSERT_TRUE(loop_.run(file->datasync()).has_value());
  expect_contents(*file, 77, data);
  expect_contents(*file, 0, Bytes(data).first(50));
}

TEST_P(KernelFileOnLoop, SaysWhenTheFileEnds) {
  const auto file = open(options_for(dir_.file("short"), 1000));
  std::vector<std::byte> data(500);
  const Result<void> read = loop_.run(file->read(800, data));
  ASSERT_FALSE(read.has_value());
  EXPECT_TRUE(read.error().is(Errc::kIo));
  EXPECT_THAT(read.error().message(), HasSubstr("shorter"));
}

TEST_P(KernelFileOnLoop, FreesAndKeepsSpace) {
  const std::string path = dir_.file("space");
  const auto file = open(options_for(path, 8 * kMiB));
  const std::vector<std::byte> data = random_bytes(8 * kMiB, 3);
  const std::vector<std::byte> zeros(4 * kMiB);
  ASSERT_TRUE(loop_.run(file->write(0, data, {})).has_value());
  ASSERT_TRUE(loop_.run(file->datasync()).has_value());
  const auto full = stat_of(path).st_blocks;
  const Result<void> zeroed = loop_.run(file->zero(ByteRange(0, 4 * kMiB)));
  if (!zeroed && zeroed.error().is(Errc::kNotSupported)) {
    GTEST_SKIP() << "machine: the filesystem of " << path << " has no FALLOC_FL_ZERO_RANGE";
  }
  EXPECT_GE(stat_of(path).st_blocks, full - 64);
  expect_contents(*file, 0, zeros);
  ASSERT_TRUE(loop_.run(file->punch(ByteRange(2 * kMiB, 4 * kMiB))).has_value());
  EXPECT_LT(stat_of(path).st_blocks, full * 5 / 8);
  expect_contents(*file, 2 * kMiB, zeros);
  expect_contents(*file, 6 * kMiB, Bytes(data).subspan(6 * kMiB));
  ASSERT_TRUE(loop_.run(file->allocate(ByteRange(2 * kMiB, 4 * kMiB))).has_value());
  EXPECT_GE(stat_of(path).st_blocks, full - 64);
  EXPECT_EQ(*file->size(), 8 * kMiB);
}

TEST_P(KernelFileOnLoop, FindsDataAndHoles) {
  const auto file = open(options_for(dir_.file("holes"), kTiB));
  const std::vector<std::byte> data = random_bytes(64U << 10, 4);
  ASSERT_TRUE(loop_.run(file->write(512 * kMiB, data, {})).has_value());
  const Result<uint64_t> found = loop_.run(file->next_data(0));
  if (!found && found.error().is(Errc::kNotSupported)) GTEST_SKIP() << "machine: no SEEK_DATA here";
  EXPECT_EQ(*found, 512 * kMiB);
  EXPECT_EQ(*loop_.run(file->next_hole(512 * kMiB)), 512 * kMiB + data.size());
  EXPECT_EQ(*loop_.run(file->next_data(513 * kMiB)), kTiB);
}

TEST_P(KernelFileOnLoop, ChangesItsSize) {
  const auto file = open(options_for(dir_.file("resized"), kMiB));
  ASSERT_TRUE(loop_.run(file->truncate(3 * kMiB)).has_value());
  EXPECT_EQ(*file->size(), 3 * kMiB);
}

TEST_P(KernelFileOnLoop, ReportsTheLargestFileSizeAsNoSpace) {
  const auto file = open(options_for(dir_.file("limit"), 0));
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  rlimit limit = old_limit;
  limit.rlim_cur = kMiB;
  setrlimit(RLIMIT_FSIZE, &limit);
  const Result<void> written = loop_.run(file->write(kMiB, random_bytes(4096, 5), {}));
  setrlimit(RLIMIT_FSIZE, &old_limit);
  signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(written.has_value());
  EXPECT_TRUE(written.error().is(Errc::kNoSpace)) << written.error().message();
}

TEST_P(KernelFileOnLoop, DoesDirectIoFromAnyMemory) {
  KernelFile::Options options = options_for(dir_.file("direct"), 16 * kMiB);
  options.direct = true;
  Result<std::unique_ptr<KernelFile>> opened = loop_.run(KernelFile::open(options));
  if (!opened && opened.error().is(Errc::kInvalid)) {
    GTEST_SKIP() << "machine: " << opened.error().message();
  }
  ASSERT_TRUE(opened) << opened.error().message();
  KernelFile& file = **opened;
  EXPECT_GE(file.block_size(), 512U);
  const std::vector<std::byte> data = random_bytes(3 * kMiB + 1, 6);
  const Bytes odd = Bytes(data).subspan(1);  // memory at an odd address
  ASSERT_TRUE(loop_.run(file.write(kMiB, odd, {})).has_value());
  ASSERT_TRUE(loop_.run(file.write(8 * kMiB, odd.first(kMiB), {.fua = true})).has_value());
  std::vector<std::byte> found(3 * kMiB + 3);
  const MutableBytes target = MutableBytes(found).subspan(3);
  ASSERT_TRUE(loop_.run(file.read(kMiB, target)).has_value());
  EXPECT_TRUE(std::equal(odd.begin(), odd.end(), target.begin()));
  EXPECT_FALSE(file.try_read(kMiB, target).has_value());
}

/// Whether the filesystem under `path` answers reads from its cache only.
bool has_nowait_reads(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char byte = 0;
  const iovec one{&byte, 1};
  return preadv2(fd.get(), &one, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

TEST_P(KernelFileOnLoop, ReadsWhatIsCachedInPlace) {
  const auto file = open(options_for(dir_.file("cached"), kMiB));
  const std::vector<std::byte> data = random_bytes(8192, 7);
  std::optional<Result<void>> inline_write = file->try_write(4096, data);
  if (!inline_write) {
    ASSERT_TRUE(loop_.run(file->write(4096, data, {})).has_value());
  }
  std::vector<std::byte> found(8192);
  const std::optional<Result<void>> read = file->try_read(4096, found);
  if (!read && !has_nowait_reads(dir_.file("cached"))) {
    GTEST_SKIP() << "machine: this filesystem has no RWF_NOWAIT reads";
  }
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(read->has_value());
  EXPECT_EQ(found, data);
  EXPECT_FALSE(file->try_read(kMiB - 4096, found).has_value());  // the file ends before that
}

TEST_P(KernelFileOnLoop, HasAnIdThatARenameKeeps) {
  const auto first = open(options_for(dir_.file("a"), kMiB));
  const auto other = open(options_for(dir_.file("b"), kMiB));
  const std::string id = first->id();
  EXPECT_NE(id, other->id());
  ASSERT_TRUE(loop_.run(first->close()).has_value());
  std::filesystem::rename(dir_.file("a"), dir_.file("c"));
  EXPECT_EQ(open(options_for(dir_.file("c"), 0))->id(), id);
}

/// Plays the kernel: each operation gets the next of `answers`; with none left it is really done.
class ScriptedFiles final : public SimFiles {
 public:
  using Answer = std::function<int64_t(FileIo&)>;

  void start(SimLoop& loop, FileIo& io) override {
    seen.push_back(io);
    outstanding.insert(io.fd);
    fds_outstanding_max = std::max(fds_outstanding_max, outstanding.size());
    int64_t result = 0;
    if (!answers.empty()) {
      result = answers.front()(io);
      answers.erase(answers.begin());
    } else if (io.kind == FileIo::Kind::kRead) {
      result = pread(io.fd, io.data, io.length, static_cast<off_t>(io.offset));
    } else if (io.kind == FileIo::Kind::kWrite) {
      result = pwrite(io.fd, io.data, io.length, static_cast<off_t>(io.offset));
    }
    loop.complete(io, result, 1ms);
  }

  static Answer fail(int number) {
    return [number](FileIo&) { return -number; };
  }
  /// Moves only so many bytes.
  static Answer move(size_t bytes) {
    return [bytes](FileIo& io) -> int64_t {
      const auto offset = static_cast<off_t>(io.offset);
      return io.kind == FileIo::Kind::kRead ? pread(io.fd, io.data, bytes, offset)
                                            : pwrite(io.fd, io.data, bytes, offset);
    };
  }

  std::vector<Answer> answers;
  std::vector<FileIo> seen;
  std::multiset<int> outstanding;
  size_t fds_outstanding_max = 0;
};

class KernelFileScripted : public ::testing::Test {
 protected:
  KernelFileScripted() {
    Result<std::unique_ptr<KernelFile>> file =
        *loop_.run(KernelFile::open(options_for(dir_.file("scripted"), kMiB)));
    EXPECT_TRUE(file.has_value());
    file_ = *std::move(file);
  }
  Result<void> run(Task<Result<void>> task) {
    std::optional<Result<void>> result = loop_.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "the task did not finish";
    return result.value_or(Result<void>(Errc::kTimedOut));
  }
  Error error_of(Task<Result<void>> task) {
    const Result<void> result = run(std::move(task));
    EXPECT_FALSE(result.has_value());
    return result ? Error(Errc::kInvalid, "it succeeded") : result.error();
  }

  TempDir dir_;
  ScriptedFiles files_;
  SimLoop loop_{SimLoop::Options{}, &files_};
  std::unique_ptr<KernelFile> file_;
  const std::vector<std::byte> data_ = random_bytes(20'000, 8);
};

TEST_F(KernelFileScripted, GoesOnAfterShortAndInterruptedTransfers) {
  files_.answers = {ScriptedFiles::move(1), ScriptedFiles::fail(EINTR), ScriptedFiles::move(4095),
                    ScriptedFiles::fail(EAGAIN)};
  ASSERT_TRUE(run(file_->write(10, data_, {})).has_value());
  EXPECT_EQ(files_.seen.back().offset, 10U + 4096U);
  files_.answers = {ScriptedFiles::fail(EAGAIN), ScriptedFiles::move(7777),
                    ScriptedFiles::fail(EINTR), ScriptedFiles::move(1)};
  std::vector<std::byte> found(data_.size());
  ASSERT_TRUE(run(file_->read(10, found)).has_value());
  EXPECT_EQ(found, data_);
}

TEST_F(KernelFileScripted, GivesUpOnAKernelThatOnlySaysAgain) {
  files_.answers.assign(1000, ScriptedFiles::fail(EAGAIN));
  EXPECT_TRUE(error_of(file_->write(0, data_, {})).is(Errc::kIo));
  EXPECT_LT(files_.seen.size(), 200U);
}

TEST_F(KernelFileScripted, TurnsErrnoIntoTheFewErrorsOfAFile) {
  const std::vector<std::pair<int, Errc>> cases = {
      {ENOSPC, Errc::kNoSpace}, {EDQUOT, Errc::kNoSpace}, {EFBIG, Errc::kNoSpace},
      {EIO, Errc::kIo},         {EROFS, Errc::kReadOnly}, {ENOMEM, Errc::kNoMemory},
      {EUCLEAN, Errc::kIo},     {EINVAL, Errc::kIo},      {EPERM, Errc::kReadOnly},
      {EBADF, Errc::kIo},
  };
  for (const auto& [number, expected] : cases) {
    files_.answers = {ScriptedFiles::fail(number)};
    const Error error = error_of(file_->write(4096, data_, {}));
    EXPECT_TRUE(error.is(expected)) << error.message();
    EXPECT_THAT(error.message(), HasSubstr("20000 bytes at 4096"));
  }
}

TEST_F(KernelFileScripted, ReportsWhatCouldNotBeWrittenAfterAPart) {
  files_.answers = {ScriptedFiles::move(4096), ScriptedFiles::fail(ENOSPC)};
  EXPECT_TRUE(error_of(file_->write(0, data_, {})).is(Errc::kNoSpace));
}

TEST_F(KernelFileScripted, RetriesAnInterruptedSyncButNotAFailedOne) {
  files_.answers = {ScriptedFiles::fail(EINTR)};
  EXPECT_TRUE(run(file_->datasync()).has_value());
  files_.answers = {ScriptedFiles::fail(ENOSPC)};
  EXPECT_TRUE(error_of(file_->datasync()).is(Errc::kIo));
  EXPECT_EQ(files_.seen.size(), 3U);
}

TEST_F(KernelFileScripted, WritesSynchronouslyOnADescriptorThatNobodyElseUses) {
  const Bytes data = data_;
  loop_.spawn([](KernelFile& file, Bytes first) -> Task<void> {
    EXPECT_TRUE((co_await file.write(0, first, WriteFlags{.fua = true})).has_value());
  }(*file_, data.first(4096)));
  loop_.spawn([](KernelFile& file, Bytes second) -> Task<void> {
    EXPECT_TRUE((co_await file.write(8192, second, WriteFlags{.fua = true})).has_value());
  }(*file_, data.first(4096)));
  EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  ASSERT_EQ(files_.seen.size(), 2U);
  EXPECT_NE(files_.seen[0].fd, files_.seen[1].fd);
  EXPECT_EQ(files_.seen[0].flags, RWF_DSYNC);
  ASSERT_TRUE(run(file_->datasync()).has_value());
  EXPECT_NE(files_.seen[2].fd, files_.seen[0].fd);
  EXPECT_NE(files_.seen[2].fd, files_.seen[1].fd);
}

TEST_F(KernelFileScripted, DropsADescriptorThatHasTakenAnErrorReport) {
  files_.answers = {ScriptedFiles::fail(EIO)};
  EXPECT_TRUE(error_of(file_->write(0, data_, {.fua = true})).is(Errc::kIo));
  const struct stat file = stat_of(file_->name());
  struct stat info{};
  const int fd = files_.seen[0].fd;
  EXPECT_TRUE(fstat(fd, &info) != 0 || info.st_ino != file.st_ino) << "still open";
  EXPECT_TRUE(run(file_->write(0, data_, {.fua = true})).has_value());
}

TEST_F(KernelFileScripted, AllocatesInPieces) {
  ASSERT_TRUE(run(file_->punch(ByteRange(100 * kMiB, 1000 * kMiB))).has_value());
  uint64_t offset = 100 * kMiB;
  for (const FileIo& io : files_.seen) {
    EXPECT_EQ(io.flags, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    EXPECT_EQ(io.offset, offset);
    EXPECT_LE(io.length, 256 * kMiB);
    offset += io.length;
  }
  EXPECT_EQ(offset, 1100 * kMiB);
}

TEST_F(KernelFileScripted, SaysThatAFilesystemCannotAllocateSo) {
  files_.answers = {ScriptedFiles::fail(EOPNOTSUPP)};
  EXPECT_TRUE(error_of(file_->zero(ByteRange(0, 4096))).is(Errc::kNotSupported));
  files_.answers = {ScriptedFiles::fail(EINTR), ScriptedFiles::fail(ENOSPC)};
  EXPECT_TRUE(error_of(file_->allocate(ByteRange(0, 4096))).is(Errc::kNoSpace));
}

}  // namespace
}  // namespace usbd
