// SPDX-License-Identifier: Apache-2.0
//
// KernelFile: a BlockFile on the kernel's files. Reads, writes, syncs and allocation go through
// Loop::submit; what the kernel answers at once is done in place:
// - lseek(SEEK_DATA, SEEK_HOLE), because it reads metadata that is nearly always cached (0.3 us)
// and
//   a trip to a thread costs fifty times that. It can wait for a moment on an inode lock that an
//   allocation holds, which is why punch() and zero() work in pieces.
// - ftruncate and close, which belong to opening, resizing and closing.
//
// Each outstanding FUA write has a descriptor of its own. The kernel reports a failed write-back
// once per open file: of two synchronous writes on one descriptor, or of one and a datasync(), the
// wrong one could get the report, and the other would succeed without its data being safe.

#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "async/block_file.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "usbd/loop.h"

namespace usbd {

/// What to do when a volume does not exist, or does.
enum class CreatePolicy : uint8_t {
  kAuto,   ///< Open it, or make it.
  kNever,  ///< It must exist.
  kOnly,   ///< It must not exist.
};

class KernelFile final : public BlockFile {
 public:
  struct Options {
    std::string path;
    bool read_only = false;
    /// By-pass the page cache (O_DIRECT).
    bool direct = false;
    CreatePolicy create = CreatePolicy::kNever;
    /// The size of a new file, all of it a hole. Units: bytes.
    uint64_t new_size = 0;
    /// How long to wait for another process to let go of the file.
    Nanos lock_wait = limits::kFileLockWait;
    /// For a look at what another process writes: no lock is taken, and parts of what is read may
    /// be of different moments. Only with read_only; asserted.
    bool unlocked = false;
  };

  /// Opens or makes a regular file, or opens a block device, and locks it: against every other
  /// writer, or, read-only, against any writer. A block device is also claimed (O_EXCL), so that it
  /// cannot be mounted meanwhile. Waits in place for the disk: for start-up, not for the data path.
  /// Durable: a new file, its size (mode 0600) and its name, before this returns.
  /// Errors:  kNotFound, kExists (CreatePolicy), kBusy (locked or mounted; names the holder if it
  /// is
  ///          known), kInvalid (not a file or block device; no O_DIRECT there), what open(2) says.
  static Task<Result<std::unique_ptr<KernelFile>>> open(Options options);

  ~KernelFile() override;

  /// Whether open() made the file, or filled an empty one that an interrupted start had left.
  [[nodiscard]] bool created() const { return created_; }
  [[nodiscard]] bool is_block_device() const { return block_device_; }
  [[nodiscard]] bool is_direct() const { return direct_; }
  [[nodiscard]] bool is_read_only() const { return read_only_; }
  /// Names the same file for as long as this system runs, whatever it is renamed to.
  [[nodiscard]] const std::string& id() const { return id_; }
  /// Whether a block device zeroes and frees blocks by command rather than by writing zeros.
  [[nodiscard]] bool has_write_zeroes() const { return write_zeroes_; }

  [[nodiscard]] std::string name() const override { return path_; }
  [[nodiscard]] uint32_t block_size() const override { return block_size_; }
  [[nodiscard]] Result<uint64_t> size() const override;
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  Task<Result<void>> datasync() override;
  Task<Result<void>> allocate(ByteRange range) override;
  Task<Result<void>> punch(ByteRange range) override;
  Task<Result<void>> zero(ByteRange range) override;
  Task<Result<void>> truncate(uint64_t size) override;
  Task<Result<uint64_t>> next_data(uint64_t offset) override;
  Task<Result<uint64_t>> next_hole(uint64_t offset) override;
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data) override;
  void forget_unwritten() override;
  Task<Result<void>> close() override;

 private:
  explicit KernelFile(const Options& options);

  // kernel_file_open.cc
  [[nodiscard]] Result<bool> exists(CreatePolicy create) const;
  Result<void> open_and_lock(CreatePolicy create);
  [[nodiscard]] Error open_failed(bool existing) const;
  Result<void> prepare(uint64_t new_size);
  [[nodiscard]] Result<void> fill_new(uint64_t bytes) const;
  [[nodiscard]] Result<int> open_again() const;
  Result<void> find_alignment();
  void find_identity();

  Task<Result<void>> transfer(FileIo io);
  Task<Result<void>> transfer_synchronously(FileIo io);
  Result<int> take_fua_descriptor();
  void give_fua_descriptor(int fd, bool usable);
  Task<Result<void>> read_through_buffer(uint64_t offset, MutableBytes data);
  Task<Result<void>> write_through_buffer(uint64_t offset, Bytes data, WriteFlags flags);
  Task<Result<void>> change_allocation(int mode, ByteRange range);
  Result<uint64_t> seek(uint64_t offset, int whence) const;
  [[nodiscard]] bool memory_fits(const void* data) const;
  [[nodiscard]] FileIo make_io(FileIo::Kind kind, uint64_t offset, uint64_t length) const;
  Error describe(const char* what, int number, ByteRange range) const;

  const std::string path_;
  const bool read_only_;
  const bool direct_;
  const bool unlocked_;
  bool made_here_ = false;  // the name is ours to remove if opening fails
  bool created_ = false;
  bool block_device_ = false;
  bool write_zeroes_ = false;
  uint32_t block_size_ = 1;
  uint32_t memory_alignment_ = 1;
  std::string id_;
  int fd_ = -1;
  /// Whether the filesystem knows RWF_NOWAIT; found out by the first use.
  std::atomic<bool> nowait_reads_;
  std::atomic<bool> nowait_writes_;
  Mutex fua_mutex_;
  /// Descriptors for FUA writes that no write uses at the moment.
  std::vector<int> fua_idle_ USBD_GUARDED_BY(fua_mutex_);
};

}  // namespace usbd
