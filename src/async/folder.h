// SPDX-License-Identifier: Apache-2.0
//
// Folder: the seam between usbd and a directory that holds a volume's local files. On the kernel's
// filesystems it is kernel_folder.h; in the simulation a disk that loses power.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/block_file.h"
#include "async/kernel_file.h"

namespace usbd {

/// Threads: any loop thread. Range: names are single path components, not "." or "..".
class Folder {
 public:
  struct OpenHow {
    CreatePolicy create = CreatePolicy::kNever;
    /// The size of a new file, all of it a hole. Units: bytes.
    uint64_t new_size = 0;
    /// By-pass the page cache where the filesystem can.
    bool direct = false;
    bool read_only = false;
    Nanos lock_wait = limits::kFileLockWait;
    /// As KernelFile::Options::unlocked. A simulated disk has no locks.
    bool unlocked = false;
  };

  virtual ~Folder() = default;

  /// What the folder is called in messages; usually its path.
  [[nodiscard]] virtual std::string name() const = 0;

  /// Opens or makes a file, and locks it as KernelFile::open does: nothing is read before the lock
  /// is held, and requests that a killed process left in the kernel hold it until they are done.
  /// Durable: a new file, its size and its name, before this returns.
  /// Errors:  as KernelFile::open.
  virtual Task<Result<std::unique_ptr<BlockFile>>> open(std::string name, OpenHow how) = 0;

  /// Renames a file, in place of what `to` named. Durable: on success; after a crash in between
  /// either name may be the one. Errors: kNotFound, kIo, what the system said.
  virtual Task<Result<void>> rename(std::string from, std::string to) = 0;

  /// Removes a file; success if there is none. Durable: on success.
  virtual Task<Result<void>> remove(std::string name) = 0;

  /// The names of the regular files in it, sorted.
  virtual Task<Result<std::vector<std::string>>> list() = 0;
};

}  // namespace usbd
