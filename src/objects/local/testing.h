// SPDX-License-Identifier: Apache-2.0
//
// LocalFolder: for tests, a new directory that is gone with it, stores opened in it, and the system
// calls of a disk that fails.

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "async/testing.h"
#include "base/assert.h"
#include "objects/local/local_store.h"

namespace usbd::objects::testing {

class LocalFolder {
 public:
  LocalFolder() {
    std::string name = std::filesystem::temp_directory_path() / "usbd-store-XXXXXX";
    USBD_ASSERT(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  LocalFolder(const LocalFolder&) = delete;
  LocalFolder& operator=(const LocalFolder&) = delete;
  ~LocalFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::filesystem::path container() const {
    return std::filesystem::path(path_) / "vol";
  }
  [[nodiscard]] std::filesystem::path hidden() const { return container() / ".usbd"; }
  /// The file of an object.
  [[nodiscard]] std::filesystem::path file_of(const std::string& object) const {
    const ObjectPath parts = object_path(object);
    std::filesystem::path file = container();
    for (const std::string& folder : parts.folders) file /= folder;
    return file / parts.file;
  }
  /// Files of the hidden folder besides the lock.
  [[nodiscard]] size_t left_over() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(hidden())) {
      if (entry.path().filename() != "lock") ++count;
    }
    return count;
  }

  Result<std::unique_ptr<LocalStore>> open(usbd::testing::TestLoop& loop, Rng& rng,
                                           FileCalls* calls = nullptr,
                                           bool read_only = false) const {
    LocalStore::Options options{
        .path = path_, .container = "vol", .read_only = read_only, .calls = calls};
    return loop.run(LocalStore::open(std::move(options), loop.pool(), rng));
  }

 private:
  std::string path_;
};

/// Counts calls, and fails those it is told to.
class FaultCalls final : public FileCalls {
 public:
  enum class Call : uint8_t { kWrite, kRead, kDataSync, kFolderSync, kRename, kLock };

  /// The call after the next `after` of its kind fails with `number`, `count` times; 0: a short
  /// one.
  void fail(Call call, int number, int after = 0, int count = 1) {
    number_ = number;
    after_ = after;
    count_ = count;
    call_ = call;
  }
  [[nodiscard]] int calls(Call call) const { return calls_[static_cast<size_t>(call)]; }
  [[nodiscard]] bool all_failed() const { return count_ <= 0; }

  ssize_t write(int fd, const void* data, size_t size) override {
    switch (meet(Call::kWrite)) {
      case kGoesWell:
        return FileCalls::write(fd, data, size);
      case 0:
        return FileCalls::write(fd, data, std::min<size_t>(size, 3));
      default:
        return -1;
    }
  }
  ssize_t pread(int fd, void* data, size_t size, off_t offset) override {
    switch (meet(Call::kRead)) {
      case kGoesWell:
        return FileCalls::pread(fd, data, size, offset);
      case 0:
        return FileCalls::pread(fd, data, std::min<size_t>(size, 3), offset);
      default:
        return -1;
    }
  }
  int fdatasync(int fd) override {
    return meet(Call::kDataSync) == kGoesWell ? FileCalls::fdatasync(fd) : -1;
  }
  int fsync(int fd) override {
    return meet(Call::kFolderSync) == kGoesWell ? FileCalls::fsync(fd) : -1;
  }
  int flock(int fd, int operation) override {
    return meet(Call::kLock) == kGoesWell ? FileCalls::flock(fd, operation) : -1;
  }
  int renameat(int from_folder, const char* from, int to_folder, const char* to) override {
    if (meet(Call::kRename) != kGoesWell) return -1;
    return FileCalls::renameat(from_folder, from, to_folder, to);
  }

 private:
  static constexpr int kGoesWell = -1;

  /// The errno of this call, or that it goes well.
  int meet(Call call) {
    ++calls_[static_cast<size_t>(call)];
    if (call != call_ || count_ <= 0 || after_-- > 0) return kGoesWell;
    --count_;
    errno = number_;
    return number_;
  }

  std::array<std::atomic<int>, 6> calls_{};
  std::atomic<int> number_{0};
  std::atomic<int> after_{0};
  std::atomic<int> count_{0};
  std::atomic<Call> call_{Call::kWrite};
};

}  // namespace usbd::objects::testing
