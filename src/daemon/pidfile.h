// SPDX-License-Identifier: Apache-2.0
//
// The file that says which process is the daemon, for init scripts: written when requests are
// served, removed when they no longer are. Another daemon's file is never touched.

#pragma once

#include <memory>
#include <string>

#include "usbd/result.h"

namespace usbd::daemon {

class Pidfile {
 public:
  /// Writes this process's id to `path`, replacing the file of a process that is gone.
  /// Errors: kBusy if it names a process that runs; what writing said.
  static Result<std::unique_ptr<Pidfile>> create(const std::string& path);
  /// Removes the file if it is still this process's.
  ~Pidfile();
  Pidfile(const Pidfile&) = delete;
  Pidfile& operator=(const Pidfile&) = delete;

 private:
  explicit Pidfile(std::string path) : path_(std::move(path)) {}

  const std::string path_;
};

}  // namespace usbd::daemon
