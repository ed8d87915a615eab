// SPDX-License-Identifier: Apache-2.0
//
// KernelFolder: a Folder on a directory of the kernel. Files are KernelFiles; changes of names go
// to a thread of the pool, with a sync of the directory behind each, because a name is on stable
// storage only when its directory is.
//
// The directory is opened once, when the folder is: names are changed in that directory, whatever
// its path means later. KernelFile opens by path, so open() first sees to it that the path still
// leads there.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/folder.h"
#include "async/worker_pool.h"

namespace usbd {

class KernelFolder final : public Folder {
 public:
  /// Opens the directory at `path`, which must exist. Waits in place for the disk: for start-up.
  /// Lifetime: `pool` outlives the folder and all that it was asked for.
  /// Errors:   kNotFound; what open(2) says.
  static Result<std::unique_ptr<KernelFolder>> open_directory(std::string path, WorkerPool& pool);

  ~KernelFolder() override;
  KernelFolder(const KernelFolder&) = delete;
  KernelFolder& operator=(const KernelFolder&) = delete;

  [[nodiscard]] std::string name() const override { return path_; }

  /// Where `how.direct` is wanted and the filesystem cannot, the file goes through the page cache
  /// and the log says so.
  /// Errors: as Folder::open; kIo also if the path has come to be another directory.
  Task<Result<std::unique_ptr<BlockFile>>> open(std::string name, OpenHow how) override;
  Task<Result<void>> rename(std::string from, std::string to) override;
  Task<Result<void>> remove(std::string name) override;
  /// Errors: kOverflow: more than limits::kFolderEntriesMax entries of any kind.
  Task<Result<std::vector<std::string>>> list() override;

 private:
  KernelFolder(std::string path, int fd, WorkerPool& pool);

  Task<Result<std::unique_ptr<KernelFile>>> open_file(KernelFile::Options options) const;
  Task<Result<void>> make_durable(KernelFile& file);
  [[nodiscard]] Result<void> check_path() const;
  [[nodiscard]] Result<void> sync_directory() const;
  [[nodiscard]] Result<void> rename_and_sync(const std::string& from, const std::string& to) const;
  [[nodiscard]] Result<void> remove_and_sync(const std::string& name) const;
  [[nodiscard]] Result<std::vector<std::string>> read_names() const;
  [[nodiscard]] Error cannot(const std::string& what) const;

  const std::string path_;
  const int fd_;
  WorkerPool& pool_;
};

}  // namespace usbd
