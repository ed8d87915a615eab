// SPDX-License-Identifier: Apache-2.0
//
// For tests: a folder of files in memory, which can be full, can fail, and whose bytes the test can
// look at and change. Calls answer at once.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/folder.h"
#include "base/assert.h"

namespace usbd::objstore {

struct MemoryDisk {
  std::map<std::string, std::shared_ptr<std::vector<std::byte>>> files;
  /// Of all files together. Units: bytes.
  uint64_t space = UINT64_MAX;
  /// Calls for files whose names begin so fail.
  std::string reads_fail = "-";
  std::string writes_fail = "-";
  std::string syncs_fail = "-";
  std::string opens_fail = "-";
  std::string removes_fail = "-";
  /// Nothing can be read without waiting for it.
  bool waits = false;

  [[nodiscard]] uint64_t used() const {
    uint64_t bytes = 0;
    for (const auto& [name, file] : files) bytes += file->size();
    return bytes;
  }
  [[nodiscard]] bool has(const std::string& name) const { return files.contains(name); }
  [[nodiscard]] std::vector<std::byte>& bytes(const std::string& name) { return *files.at(name); }
};

class MemoryFolder final : public Folder {
 public:
  explicit MemoryFolder(MemoryDisk& disk) : disk_(disk) {}

  [[nodiscard]] std::string name() const override { return "memory"; }

  Task<Result<std::unique_ptr<BlockFile>>> open(std::string name, OpenHow how) override {
    if (name.starts_with(disk_.opens_fail)) co_return Error(Errc::kIo, name);
    auto found = disk_.files.find(name);
    if (found == disk_.files.end()) {
      if (how.create == CreatePolicy::kNever) co_return Error(Errc::kNotFound, name);
      auto bytes = std::make_shared<std::vector<std::byte>>(how.new_size);
      found = disk_.files.emplace(name, std::move(bytes)).first;
    }
    co_return std::unique_ptr<BlockFile>(
        std::make_unique<File>(disk_, name, found->second, how.direct ? 4096 : 1));
  }
  Task<Result<void>> rename(std::string from, std::string to) override {
    const auto found = disk_.files.find(from);
    if (found == disk_.files.end()) co_return Error(Errc::kNotFound, from);
    disk_.files[to] = found->second;
    disk_.files.erase(from);
    co_return Result<void>();
  }
  Task<Result<void>> remove(std::string name) override {
    if (name.starts_with(disk_.removes_fail)) co_return Error(Errc::kIo, name);
    disk_.files.erase(name);
    co_return Result<void>();
  }
  Task<Result<std::vector<std::string>>> list() override {
    std::vector<std::string> names;
    for (const auto& [name, file] : disk_.files) names.push_back(name);
    co_return names;
  }

 private:
  using Contents = std::shared_ptr<std::vector<std::byte>>;

  class File final : public BlockFile {
   public:
    File(MemoryDisk& disk, std::string name, Contents bytes, uint32_t unit)
        : disk_(disk), name_(std::move(name)), bytes_(std::move(bytes)), unit_(unit) {}

    [[nodiscard]] std::string name() const override { return name_; }
    [[nodiscard]] uint32_t block_size() const override { return unit_; }
    [[nodiscard]] Result<uint64_t> size() const override { return bytes_->size(); }

    Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
      check(offset, data.size());
      if (name_.starts_with(disk_.reads_fail) || offset + data.size() > bytes_->size()) {
        co_return Error(Errc::kIo, name_);
      }
      if (!data.empty()) std::memcpy(data.data(), bytes_->data() + offset, data.size());
      co_return Result<void>();
    }
    Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags /*flags*/) override {
      check(offset, data.size());
      if (name_.starts_with(disk_.writes_fail)) co_return Error(Errc::kIo, name_);
      USBD_CO_TRY_VOID(grow(offset + data.size()));
      if (!data.empty()) std::memcpy(bytes_->data() + offset, data.data(), data.size());
      co_return Result<void>();
    }
    std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override {
      check(offset, data.size());
      const bool fails = name_.starts_with(disk_.reads_fail);
      if (disk_.waits || fails || offset + data.size() > bytes_->size()) return std::nullopt;
      if (!data.empty()) std::memcpy(data.data(), bytes_->data() + offset, data.size());
      return Result<void>();
    }
    Task<Result<void>> datasync() override {
      if (name_.starts_with(disk_.syncs_fail)) co_return Error(Errc::kIo, name_);
      co_return Result<void>();
    }
    Task<Result<void>> allocate(ByteRange range) override { co_return grow(range.end()); }
    Task<Result<void>> punch(ByteRange range) override { co_return co_await zero(range); }
    Task<Result<void>> zero(ByteRange range) override {
      USBD_CO_TRY_VOID(grow(range.end()));
      std::fill_n(bytes_->begin() + static_cast<ptrdiff_t>(range.offset), range.length,
                  std::byte{});
      co_return Result<void>();
    }
    Task<Result<void>> truncate(uint64_t size) override {
      bytes_->resize(size);
      co_return Result<void>();
    }
    Task<Result<uint64_t>> next_data(uint64_t offset) override { co_return offset; }
    Task<Result<uint64_t>> next_hole(uint64_t /*offset*/) override { co_return bytes_->size(); }
    Task<Result<void>> close() override { co_return Result<void>(); }

   private:
    void check(uint64_t offset, uint64_t length) const {
      USBD_ASSERT((offset | length) % unit_ == 0);
    }
    Result<void> grow(uint64_t size) {
      if (size <= bytes_->size()) return {};
      if (disk_.used() + size - bytes_->size() > disk_.space) return Error(Errc::kNoSpace, name_);
      bytes_->resize(size);
      return {};
    }

    MemoryDisk& disk_;
    const std::string name_;
    const Contents bytes_;
    const uint32_t unit_;
  };

  MemoryDisk& disk_;
};

}  // namespace usbd::objstore
