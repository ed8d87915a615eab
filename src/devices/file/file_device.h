// SPDX-License-Identifier: Apache-2.0
//
// FileDevice: a block device kept in a regular file or on another block device. The file is the
// device, byte for byte: no header, no format, usable by everything else when it is not served.
//
// Durability is the file's: flush is fdatasync, FUA a synchronous write. The device adds one thing
// that Linux lacks: a failed fdatasync is not forgotten (SyncGroup; docs/adr/0007-failed-sync.md).

#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "async/block_file.h"
#include "async/kernel_file.h"
#include "base/limits.h"
#include "devices/file/sync_group.h"
#include "usbd/device.h"

namespace usbd {

class FileDevice final : public Device {
 public:
  struct Options {
    std::string path;
    CreatePolicy create = CreatePolicy::kAuto;
    /// The size of a new file, rounded up to the logical block. Units: bytes.
    uint64_t size = 0;
    /// Whether `size` was asked for: then an existing file of another size is refused.
    bool size_is_explicit = false;
    bool read_only = false;
    /// By-pass the page cache (O_DIRECT).
    bool direct = false;
    uint32_t logical_block_size = 4096;
    Nanos lock_wait = limits::kFileLockWait;
  };

  /// What a file is like beyond what BlockFile says.
  struct Traits {
    bool read_only = false;
    uint32_t logical_block_size = 4096;
    /// Whether freed ranges can be asked for at all; found out by trying if `probe_punch`.
    bool punches = true;
    /// Whether punching beyond the end is harmless, so that it may be tried.
    bool probe_punch = true;
    /// See volume_id().
    std::string id = "unnamed";
  };

  /// Opens, or makes, what `options` names. A new file is sparse and ready whatever its size.
  /// Logs a creation, and a tail that does not fill a block and is not served.
  /// Durable: a new file and its name, before this returns.
  /// Errors:  those of KernelFile::open; kInvalid (empty file, another size than asked for).
  static Task<Result<std::unique_ptr<FileDevice>>> open(Options options);

  /// The device on a file that is open already.
  /// Errors: kInvalid (less than one block), kIo.
  static Task<Result<std::unique_ptr<FileDevice>>> make(std::unique_ptr<BlockFile> file,
                                                        Traits traits);

  /// Names the same volume for as long as this system runs; for NBD's BACKEND_IDENTIFIER.
  [[nodiscard]] const std::string& volume_id() const { return traits_.id; }

  [[nodiscard]] std::string name() const override { return "file:" + file_->name(); }
  [[nodiscard]] Geometry geometry() const override { return geometry_; }
  [[nodiscard]] Capabilities capabilities() const override { return capabilities_; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  /// Errors: kIo for ever once a sync has failed. Reads and writes without FUA go on, and reads
  ///         give what was written, on the disk or not, as far as the system has kept it.
  Task<Result<void>> flush() override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  /// Frees the range, or with no_hole keeps it allocated.
  /// Errors: kNotSupported if the filesystem cannot do that; core then writes zeros.
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override;
  /// Syncs. After a failed sync the system's copy of what did not reach the disk is given up, so
  /// that the next open() reads what is there.
  /// Errors: kIo if a sync has ever failed; what close(2) said.
  Task<Result<void>> close() override;

  /// From the page cache, where the filesystem can say that it need not wait.
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override;

 private:
  FileDevice(std::unique_ptr<BlockFile> file, Traits traits);
  Task<Result<void>> find_out();
  void check(ByteRange range) const;
  Task<Result<void>> write_fua(uint64_t offset, Bytes data);
  Task<Result<void>> free_range(ByteRange range);
  Task<Result<void>> sync_if(bool fua);

  const std::unique_ptr<BlockFile> file_;
  const Traits traits_;
  Geometry geometry_;
  Capabilities capabilities_;
  SyncGroup syncs_;
  std::atomic<unsigned> fua_writes_{0};
};

}  // namespace usbd
