// SPDX-License-Identifier: Apache-2.0
//
// FileCalls: the system calls of a store in a directory that can fail late, when a disk does. A
// test puts its own in their place; everything else is called directly.

#pragma once

#include <cstdio>

#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

namespace usbd::objects {

/// Each is the system call of that name, errno and all. Threads: any.
class FileCalls {
 public:
  virtual ~FileCalls() = default;

  virtual ssize_t write(int fd, const void* data, size_t size) { return ::write(fd, data, size); }
  virtual ssize_t pread(int fd, void* data, size_t size, off_t offset) {
    return ::pread(fd, data, size, offset);
  }
  virtual int fdatasync(int fd) { return ::fdatasync(fd); }
  /// Only of folders.
  virtual int fsync(int fd) { return ::fsync(fd); }
  virtual int flock(int fd, int operation) { return ::flock(fd, operation); }
  virtual int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    return ::renameat(from_folder, from, to_folder, to);
  }
};

}  // namespace usbd::objects
