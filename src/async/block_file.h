// SPDX-License-Identifier: Apache-2.0
//
// BlockFile: the seam between usbd and files. Everything that keeps data on a local disk is written
// against it, so that the same code runs on the kernel's files (kernel_file.h) and on a file that
// forgets, tears and fails as disks do (fault_file.h). Raw file calls stand only below this line.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "usbd/buffer.h"
#include "usbd/device.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd {

/// A file of fixed-position bytes: a regular file or a block device.
/// Threads:  any loop thread; any number of calls outstanding at once.
/// Lifetime: memory passed in stays valid until the task has finished. A task is always awaited to
///           its end: there is no cancelling.
/// Range:    offsets, lengths and range ends are multiples of block_size(); asserted.
/// Order:    calls that overlap in time may take effect in either order.
/// Errors:   kNoSpace (also quota and the largest file size), kIo, kReadOnly, kNotSupported,
///           kNoMemory; every other system error becomes kIo with its text in the context.
class BlockFile {
 public:
  virtual ~BlockFile() = default;

  /// What the file is called in messages; usually its path.
  [[nodiscard]] virtual std::string name() const = 0;
  /// The unit of offsets and lengths: 1, unless the page cache is by-passed. A power of two.
  [[nodiscard]] virtual uint32_t block_size() const = 0;
  /// The present size. Units: bytes.
  [[nodiscard]] virtual Result<uint64_t> size() const = 0;

  /// Fills all of `data` from `offset`, or fails.
  /// Errors: kIo also if the file ends before `offset + data.size()`.
  virtual Task<Result<void>> read(uint64_t offset, MutableBytes data) = 0;

  /// Writes all of `data` at `offset`, or fails; a file may grow by it.
  /// Durable: with flags.fua on success; else after a later datasync() has succeeded. A failed FUA
  ///          write never hides an error from datasync().
  /// Errors:  after an error the range holds old, new or mixed data.
  virtual Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) = 0;

  /// Makes durable what completed before this call, and the size that is needed to read it back.
  /// Errors: after an error, what was not durable may never become so, and a later datasync() may
  ///         succeed all the same, because the kernel forgets. Callers remember the error.
  virtual Task<Result<void>> datasync() = 0;

  /// Reserves space for the range; its contents stay. The file grows if the range ends beyond it.
  /// Durable: as write(). Errors: kNoSpace; kNotSupported by some filesystems.
  virtual Task<Result<void>> allocate(ByteRange range) = 0;
  /// Frees the range's space; it reads as zeros. The size stays.
  /// Durable: as write(). Errors: kNotSupported, before anything was changed.
  virtual Task<Result<void>> punch(ByteRange range) = 0;
  /// Makes the range read as zeros and keeps, or takes, its space. The size stays.
  /// Durable: as write(). Errors: kNotSupported, before anything was changed.
  virtual Task<Result<void>> zero(ByteRange range) = 0;
  /// Sets the size; new bytes read as zeros and take no space.
  /// Durable: as write(). Errors: kNotSupported for block devices.
  virtual Task<Result<void>> truncate(uint64_t size) = 0;

  /// The first offset at or after `offset` that holds data; the file's size if there is none.
  /// Range:  offset < size; no alignment. The answer may be old when it arrives.
  /// Errors: kNotSupported if the file does not know its holes.
  virtual Task<Result<uint64_t>> next_data(uint64_t offset) = 0;
  /// The first offset at or after `offset` that is a hole; the file's size if there is none.
  /// Range, Errors: as next_data().
  virtual Task<Result<uint64_t>> next_hole(uint64_t offset) = 0;

  /// The same as read() if it can be done without waiting; empty: ask read(). Default: empty.
  virtual std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data);
  /// The same as write() without FUA if it can be done without waiting; empty: ask write(), for all
  /// of it, whatever part has landed. Default: empty.
  virtual std::optional<Result<void>> try_write(uint64_t offset, Bytes data);

  /// After a failed datasync(): has the system forgotten what it failed to write, so that whoever
  /// opens the file next reads what is on the disk, not what was meant to be? What is waiting to be
  /// written is not touched. Default: nothing is remembered, so nothing is done.
  virtual void forget_unwritten() {}

  /// Gives the file up; the last call, and no other is outstanding. Does not sync.
  /// Errors: what the system said; the file is given up all the same.
  virtual Task<Result<void>> close() = 0;
};

}  // namespace usbd
