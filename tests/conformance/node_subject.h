// SPDX-License-Identifier: Apache-2.0
//
// NodeSubject: a block device node of the kernel, such as /dev/nbd0, used as a program with
// O_DIRECT would: pread, pwrite (RWF_DSYNC for FUA), BLKDISCARD, BLKZEROOUT and fsync. Each request
// of a batch has a thread, since these calls wait.

#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

class NodeSubject final : public Subject {
 public:
  /// Errors: it is no block device, is in use (opened with O_EXCL), or may not be opened.
  static Result<std::unique_ptr<NodeSubject>> open(std::string path, bool trim_zeroes);
  ~NodeSubject() override;

  [[nodiscard]] SubjectTraits traits() const override { return traits_; }
  Result<void> execute(std::span<Operation> batch) override;
  Result<void> reopen() override;

 private:
  explicit NodeSubject(std::string path) : path_(std::move(path)) {}
  Result<void> open_node();
  Result<void> ask_geometry();
  Result<void> ask_discard();
  void start_threads();
  void work();
  void carry_out(Operation& op) const;
  [[nodiscard]] int read(Operation& op) const;
  [[nodiscard]] int write(const Operation& op) const;

  const std::string path_;
  UniqueFd fd_;
  SubjectTraits traits_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::span<Operation> batch_;
  size_t next_ = 0;
  size_t left_ = 0;
  bool stopping_ = false;
};

}  // namespace usbd::testing
