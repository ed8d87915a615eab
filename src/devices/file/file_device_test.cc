// SPDX-License-Identifier: Apache-2.0
//
// FileDevice on a FaultDisk (durability, errors, power cuts) and on real files (opening, holes).

#include "devices/file/file_device.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/fault_file.h"
#include "async/sim_loop.h"
#include "async/testing.h"
#include "base/log.h"
#include "base/unique_fd.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using testing::FaultDisk;
using testing::FileOp;
using ::testing::HasSubstr;
using testing::TestLoop;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = 1U << 20;
constexpr uint64_t kTiB = uint64_t{1} << 40;

std::vector<std::byte> bytes_of(uint64_t length, int value) {
  return std::vector<std::byte>(length, static_cast<std::byte>(value));
}

class FileDeviceOnFaultDisk : public ::testing::Test {
 protected:
  explicit FileDeviceOnFaultDisk(FaultDisk::Options options = {.size = kMiB}) : disk_(options) {
    open();
  }
  void open() {
    device_.reset();
    Result<std::unique_ptr<FileDevice>> made = make({});
    ASSERT_TRUE(made.has_value()) << made.error().message();
    device_ = *std::move(made);
  }
  Result<std::unique_ptr<FileDevice>> make(FileDevice::Traits traits) {
    return *loop_.run(FileDevice::make(disk_.open(), std::move(traits)));
  }
  Result<void> run(Task<Result<void>> task) {
    std::optional<Result<void>> result = loop_.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "the task did not finish";
    return result.value_or(Result<void>(Errc::kTimedOut));
  }
  Result<void> write(uint64_t offset, uint64_t length, int value, bool fua = false) {
    const std::vector<std::byte> data = bytes_of(length, value);
    return run(device_->write(offset, data, {.fua = fua}));
  }
  bool reads_as(uint64_t offset, uint64_t length, int value) {
    std::vector<std::byte> data(length);
    EXPECT_TRUE(run(device_->read(offset, data)).has_value());
    return data == bytes_of(length, value);
  }
  /// Starts `count` flushes at once and returns how many of them succeed.
  int flush_at_once(int count) {
    int succeeded = 0;
    for (int i = 0; i < count; ++i) loop_.spawn(count_success(*device_, succeeded));
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
    return succeeded;
  }
  static Task<void> count_success(FileDevice& device, int& succeeded) {
    const Result<void> flushed = co_await device.flush();
    if (flushed) ++succeeded;
  }

  SimLoop loop_{SimLoop::Options{}};
  FaultDisk disk_;
  std::unique_ptr<FileDevice> device_;
};

TEST_F(FileDeviceOnFaultDisk, KeepsFlushedDataThroughAPowerCut) {
  ASSERT_TRUE(write(0, 64 * kPage, 1).has_value());
  ASSERT_TRUE(run(device_->flush()).has_value());
  ASSERT_TRUE(write(70 * kPage, kPage, 2, true).has_value());
  disk_.crash_losing_all();
  open();
  EXPECT_TRUE(reads_as(0, 64 * kPage, 1));
  EXPECT_TRUE(reads_as(70 * kPage, kPage, 2));
}

TEST_F(FileDeviceOnFaultDisk, KeepsTrimsAndZeroingsWithFuaThroughAPowerCut) {
  ASSERT_TRUE(write(0, 8 * kPage, 1).has_value());
  ASSERT_TRUE(run(device_->flush()).has_value());
  ASSERT_TRUE(run(device_->trim(ByteRange(0, kPage), {.fua = true})).has_value());
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(kPage, kPage), {.fua = true})).has_value());
  disk_.crash_losing_all();
  open();
  EXPECT_TRUE(reads_as(0, 2 * kPage, 0));
  EXPECT_TRUE(reads_as(2 * kPage, 6 * kPage, 1));
}

TEST_F(FileDeviceOnFaultDisk, RefusesFlushAndFuaForEverAfterAFailedSync) {
  ASSERT_TRUE(write(0, kPage, 1).has_value());
  disk_.inject({.op = FileOp::kSync});
  EXPECT_TRUE(run(device_->flush()).error().is(Errc::kIo));
  for (int i = 0; i < 3; ++i) {
    const Result<void> flushed = run(device_->flush());
    ASSERT_FALSE(flushed.has_value());
    EXPECT_TRUE(flushed.error().is(Errc::kIo));
    EXPECT_THAT(flushed.error().message(), HasSubstr("earlier sync"));
  }
  EXPECT_TRUE(write(0, kPage, 3, true).error().is(Errc::kIo));
  EXPECT_TRUE(run(device_->trim(ByteRange(0, kPage), {.fua = true})).error().is(Errc::kIo));
  EXPECT_TRUE(run(device_->write_zeroes(ByteRange(0, kPage), {.fua = true})).error().is(Errc::kIo));
  EXPECT_TRUE(reads_as(0, kPage, 1)) << "what was refused has changed nothing";
}

TEST_F(FileDeviceOnFaultDisk, GoesOnReadingAndWritingAfterAFailedSync) {
  disk_.inject({.op = FileOp::kSync});
  ASSERT_FALSE(run(device_->flush()).has_value());
  EXPECT_TRUE(write(0, kPage, 2).has_value());
  EXPECT_TRUE(reads_as(0, kPage, 2));
  EXPECT_TRUE(run(device_->trim(ByteRange(0, kPage), {})).has_value());
  EXPECT_FALSE(run(device_->close()).has_value())
      << "closing flushes, and must not say all is well";
  open();
  EXPECT_TRUE(run(device_->flush()).has_value());
}

TEST_F(FileDeviceOnFaultDisk, ReadsWhatWasWrittenUntilItIsClosedAndThenWhatIsOnTheDisk) {
  ASSERT_TRUE(write(0, 2 * kPage, 1).has_value());
  ASSERT_TRUE(run(device_->flush()).has_value());
  ASSERT_TRUE(write(0, kPage, 2).has_value());
  ASSERT_TRUE(write(4 * kPage, kPage, 2).has_value());
  disk_.inject({.op = FileOp::kSync});
  ASSERT_FALSE(run(device_->flush()).has_value());
  ASSERT_TRUE(write(kPage, kPage, 3).has_value());
  EXPECT_TRUE(reads_as(0, kPage, 2)) << "the only copy there is";
  EXPECT_TRUE(reads_as(4 * kPage, kPage, 2));
  ASSERT_FALSE(run(device_->close()).has_value());
  open();
  EXPECT_TRUE(reads_as(0, kPage, 1));
  EXPECT_TRUE(reads_as(4 * kPage, kPage, 0));
  EXPECT_TRUE(reads_as(kPage, kPage, 3)) << "written since, and on its way to the disk";
  ASSERT_TRUE(run(device_->flush()).has_value());
  disk_.crash_losing_all();
  open();
  EXPECT_TRUE(reads_as(0, kPage, 1)) << "what a flush promised was there before it";
  EXPECT_TRUE(reads_as(kPage, kPage, 3));
}

TEST_F(FileDeviceOnFaultDisk, SharesOneSyncAmongFlushesThatWait) {
  ASSERT_TRUE(write(0, kPage, 1).has_value());
  const uint64_t before = disk_.calls(FileOp::kSync);
  EXPECT_EQ(flush_at_once(50), 50);
  // One at most for each moment at which some came; SimLoop spreads fifty over a few.
  EXPECT_LE(disk_.calls(FileOp::kSync) - before, 15U);
}

TEST_F(FileDeviceOnFaultDisk, FailsEveryFlushThatAFailedSyncCovered) {
  disk_.inject({.op = FileOp::kSync});
  EXPECT_EQ(flush_at_once(20), 0);
}

TEST_F(FileDeviceOnFaultDisk, FailsFlushesThatFollowAFailureInTheQueue) {
  disk_.inject({.op = FileOp::kSync, .after = 1});
  EXPECT_EQ(flush_at_once(20), 1) << "the first led a sync of its own";
}

TEST_F(FileDeviceOnFaultDisk, AnswersAnErrorAndGoesOn) {
  disk_.inject({.op = FileOp::kWrite, .error = Errc::kNoSpace, .partial = true});
  EXPECT_TRUE(write(0, 4 * kPage, 1).error().is(Errc::kNoSpace));
  EXPECT_TRUE(write(0, 4 * kPage, 2).has_value());
  disk_.inject({.op = FileOp::kRead});
  std::vector<std::byte> data(kPage);
  EXPECT_TRUE(run(device_->read(0, data)).error().is(Errc::kIo));
  EXPECT_TRUE(reads_as(0, 4 * kPage, 2));
  disk_.inject({.op = FileOp::kAllocate, .count = 2, .error = Errc::kNoSpace});
  EXPECT_TRUE(run(device_->trim(ByteRange(0, kPage), {})).error().is(Errc::kNoSpace));
  EXPECT_TRUE(run(device_->write_zeroes(ByteRange(0, kPage), {})).error().is(Errc::kNoSpace));
  disk_.inject({.op = FileOp::kMap});
  EXPECT_TRUE(loop_.run(device_->extents(ByteRange(0, kPage), 9))->error().is(Errc::kIo));
  EXPECT_TRUE(run(device_->flush()).has_value()) << "none of that concerns flushes";
}

TEST_F(FileDeviceOnFaultDisk, DoesNotLetAFailedFuaWriteStopTheDevice) {
  disk_.inject({.op = FileOp::kWrite, .error = Errc::kNoSpace});
  EXPECT_TRUE(write(0, kPage, 1, true).error().is(Errc::kNoSpace));
  EXPECT_TRUE(write(0, kPage, 1, true).has_value());
  EXPECT_TRUE(run(device_->flush()).has_value());
}

Task<void> write_fua(FileDevice& device, uint64_t offset, Bytes data, int& succeeded) {
  const Result<void> written = co_await device.write(offset, data, WriteFlags{.fua = true});
  if (written) ++succeeded;
}

TEST_F(FileDeviceOnFaultDisk, SharesSyncsAmongTooManyFuaWrites) {
  const std::vector<std::byte> data = bytes_of(kPage, 4);
  const uint64_t before = disk_.calls(FileOp::kSync);
  int succeeded = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    loop_.spawn(write_fua(*device_, i * kPage, data, succeeded));
  }
  ASSERT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  EXPECT_EQ(succeeded, 200);
  EXPECT_LT(disk_.calls(FileOp::kSync) - before, 100U);
  disk_.crash_losing_all();
  open();
  EXPECT_TRUE(reads_as(0, 200 * kPage, 4));
}

TEST_F(FileDeviceOnFaultDisk, DescribesItsExtents) {
  ASSERT_TRUE(write(4 * kPage, kPage, 1).has_value());
  ASSERT_TRUE(write(5 * kPage, 2 * kPage, 1).has_value());
  const Extent first{.length = 4 * kPage, .hole = true, .zero = true};
  const Extent second{.length = 3 * kPage, .hole = false, .zero = false};
  const Extent third{.length = kMiB - 7 * kPage, .hole = true, .zero = true};
  EXPECT_THAT(**loop_.run(device_->extents(ByteRange(0, kMiB), 100)),
              ElementsAre(first, second, third));
  EXPECT_THAT(**loop_.run(device_->extents(ByteRange(0, kMiB), 2)), ElementsAre(first, second));
  const Extent inside{.length = 2 * kPage, .hole = false, .zero = false};
  EXPECT_THAT(**loop_.run(device_->extents(ByteRange(5 * kPage, 2 * kPage), 9)),
              ElementsAre(inside));
}

TEST_F(FileDeviceOnFaultDisk, FreesSpaceUnlessToldToKeepIt) {
  ASSERT_TRUE(write(0, 4 * kPage, 1).has_value());
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(0, kPage), {})).has_value());
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(kPage, kPage), {.no_hole = true})).has_value());
  ASSERT_TRUE(run(device_->trim(ByteRange(2 * kPage, kPage), {})).has_value());
  EXPECT_TRUE(reads_as(0, 3 * kPage, 0));
  const std::vector<Extent> found = **loop_.run(device_->extents(ByteRange(0, 4 * kPage), 9));
  ASSERT_EQ(found.size(), 4U);
  EXPECT_TRUE(found[0].hole);
  EXPECT_FALSE(found[1].hole);
  EXPECT_TRUE(found[2].hole);
}

TEST_F(FileDeviceOnFaultDisk, RoundsAnOddTailDownAndSaysSo) {
  FaultDisk odd({.size = 3 * kPage + 100});
  std::string logged;
  log::set_sink([&logged](log::Level, std::string_view line) { logged += line; });
  const auto device = *loop_.run(FileDevice::make(odd.open(), {}));
  log::set_sink([](log::Level, std::string_view) {});
  ASSERT_TRUE(device.has_value());
  EXPECT_EQ((*device)->geometry().size, 3 * kPage);
  EXPECT_THAT(logged, HasSubstr("the last 100"));
}

TEST_F(FileDeviceOnFaultDisk, RefusesLessThanABlock) {
  FaultDisk tiny({.size = kPage - 1});
  EXPECT_TRUE(loop_.run(FileDevice::make(tiny.open(), {}))->error().is(Errc::kInvalid));
}

TEST_F(FileDeviceOnFaultDisk, SaysWhatItCanDo) {
  const Capabilities can = device_->capabilities();
  EXPECT_EQ(can.trim, Support::kNative);
  EXPECT_EQ(can.fua, Support::kNative);
  EXPECT_EQ(can.extents, Support::kNative);
  EXPECT_TRUE(can.fast_zero);
  EXPECT_TRUE(can.volatile_cache);
  EXPECT_FALSE(can.ephemeral);
  const auto reading = make({.read_only = true});
  EXPECT_TRUE((*reading)->capabilities().read_only);
  EXPECT_EQ((*reading)->capabilities().trim, Support::kNone);
  EXPECT_TRUE(run((*reading)->close()).has_value());
}

class FileDeviceOnPlainDisk : public FileDeviceOnFaultDisk {
 protected:
  FileDeviceOnPlainDisk()
      : FileDeviceOnFaultDisk({.size = kMiB,
                               .block_size = 512,
                               .punches = false,
                               .zeroes = false,
                               .knows_holes = false}) {}
};

TEST_F(FileDeviceOnPlainDisk, LeavesToCoreWhatTheFilesystemLacks) {
  const Capabilities can = device_->capabilities();
  EXPECT_EQ(can.trim, Support::kNone);
  EXPECT_FALSE(can.fast_zero);
  EXPECT_EQ(can.extents, Support::kEmulated);
  EXPECT_EQ(device_->geometry().block_size, 512U);
  const ByteRange range(0, kPage);
  EXPECT_TRUE(run(device_->write_zeroes(range, {})).error().is(Errc::kNotSupported));
  EXPECT_TRUE(run(device_->write_zeroes(range, {.no_hole = true})).error().is(Errc::kNotSupported));
  EXPECT_TRUE(
      run(device_->write_zeroes(range, {.fast_only = true})).error().is(Errc::kNotSupported));
}

/// Real files, through FileDevice::open().
class FileDeviceOnFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "usbd-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
    options_.path = dir_ / "volume.bin";
    options_.size = kMiB;
    options_.lock_wait = 0ms;
    log::set_sink([this](log::Level, std::string_view line) { logged_ += line; });
  }
  void TearDown() override {
    log::set_sink([](log::Level, std::string_view) {});
    std::filesystem::remove_all(dir_);
  }
  Result<std::unique_ptr<FileDevice>> open() { return loop_.run(FileDevice::open(options_)); }
  Error error_of_open() {
    const Result<std::unique_ptr<FileDevice>> device = open();
    EXPECT_FALSE(device.has_value());
    return device ? Error(Errc::kIo, "none") : device.error();
  }

  TestLoop loop_;
  std::filesystem::path dir_;
  FileDevice::Options options_;
  std::string logged_;
};

TEST_F(FileDeviceOnFiles, MakesASparseTerabyteAtOnce) {
  options_.size = kTiB - 5;
  const auto start = std::chrono::steady_clock::now();
  const auto device = open();
  ASSERT_TRUE(device.has_value()) << device.error().message();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 1s);
  EXPECT_EQ((*device)->geometry().size, kTiB);
  EXPECT_THAT(logged_, HasSubstr("made " + options_.path));
  struct stat info{};
  ASSERT_EQ(stat(options_.path.c_str(), &info), 0);
  EXPECT_LT(info.st_blocks, 64);
}

/// Whether the filesystem under `path` gives the space of a range back.
bool has_holes(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 ||
         errno != EOPNOTSUPP;
}

TEST_F(FileDeviceOnFiles, TrimsATerabyteAtOnce) {
  options_.size = kTiB;
  const auto device = open();
  ASSERT_TRUE(device.has_value());
  const std::vector<std::byte> data = bytes_of(kMiB, 1);
  ASSERT_TRUE(loop_.run((*device)->write(kTiB / 2, data, {})).has_value());
  if ((*device)->capabilities().trim != Support::kNative && !has_holes(options_.path)) {
    GTEST_SKIP() << "machine: this filesystem makes no holes";
  }
  ASSERT_EQ((*device)->capabilities().trim, Support::kNative);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(loop_.run((*device)->trim(ByteRange(0, kTiB), {})).has_value());
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  const auto extents = loop_.run((*device)->extents(ByteRange(0, kTiB), 10));
  EXPECT_EQ(extents->size(), 1U);
}

TEST_F(FileDeviceOnFiles, KeepsTheSizeOfAnExistingVolume) {
  {
    ASSERT_TRUE(open().has_value());
  }
  options_.size = 2 * kMiB;
  EXPECT_EQ((*open())->geometry().size, kMiB);
  options_.size_is_explicit = true;
  const Error error = error_of_open();
  EXPECT_TRUE(error.is(Errc::kInvalid));
  EXPECT_THAT(error.message(), HasSubstr("1048576"));
  EXPECT_THAT(error.message(), HasSubstr("2097152"));
  options_.size = kMiB - 100;  // rounds up to what is there
  EXPECT_TRUE(open().has_value());
}

TEST_F(FileDeviceOnFiles, FollowsTheCreatePolicy) {
  options_.create = CreatePolicy::kNever;
  EXPECT_TRUE(error_of_open().is(Errc::kNotFound));
  ::close(::open(options_.path.c_str(), O_CREAT | O_WRONLY, 0600));
  EXPECT_THAT(error_of_open().message(), HasSubstr("is empty"));
  options_.create = CreatePolicy::kOnly;
  EXPECT_TRUE(error_of_open().is(Errc::kExists));
}

TEST_F(FileDeviceOnFiles, RefusesASecondDaemon) {
  const auto device = open();
  ASSERT_TRUE(device.has_value());
  const Error error = error_of_open();
  EXPECT_TRUE(error.is(Errc::kBusy));
  EXPECT_THAT(error.message(), HasSubstr("in use by"));
  ASSERT_TRUE(loop_.run((*device)->close()).has_value());
  EXPECT_TRUE(open().has_value());
}

TEST_F(FileDeviceOnFiles, NamesTheVolumeTheSameEachTime) {
  std::string id;
  {
    const auto device = open();
    id = (*device)->volume_id();
    EXPECT_EQ((*device)->name(), "file:" + options_.path);
  }
  EXPECT_EQ((*open())->volume_id(), id);
  EXPECT_NE(id, "");
}

TEST_F(FileDeviceOnFiles, ServesDirectIoInTheBlocksItNeeds) {
  options_.direct = true;
  const auto device = open();
  if (!device && device.error().is(Errc::kInvalid)) {
    GTEST_SKIP() << "machine: " << device.error().message();
  }
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_GE((*device)->geometry().block_size, 512U);
  const std::vector<std::byte> data = bytes_of(64U << 10, 3);
  ASSERT_TRUE(loop_.run((*device)->write(0, data, {.fua = true})).has_value());
  std::vector<std::byte> found(data.size());
  EXPECT_FALSE((*device)->try_read(0, found).has_value());
  ASSERT_TRUE(loop_.run((*device)->read(0, found)).has_value());
  EXPECT_EQ(found, data);
}

TEST_F(FileDeviceOnFiles, OpensReadOnly) {
  {
    const auto device = open();
    ASSERT_TRUE(loop_.run((*device)->write(0, bytes_of(kPage, 9), {})).has_value());
    ASSERT_TRUE(loop_.run((*device)->close()).has_value());
  }
  options_.read_only = true;
  const auto device = open();
  ASSERT_TRUE(device.has_value()) << device.error().message();
  std::vector<std::byte> found(kPage);
  ASSERT_TRUE(loop_.run((*device)->read(0, found)).has_value());
  EXPECT_EQ(found, bytes_of(kPage, 9));
  EXPECT_TRUE(loop_.run((*device)->flush()).has_value());
}

}  // namespace
}  // namespace usbd
