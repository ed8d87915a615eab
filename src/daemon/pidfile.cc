// SPDX-License-Identifier: Apache-2.0
//
// Whether a process runs is asked with signal 0. EPERM means that it does, as another user.

#include "daemon/pidfile.h"

#include <charconv>
#include <optional>

#include <signal.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/text_file.h"

namespace usbd::daemon {
namespace {

/// The process that a pid file names; empty if it names none.
std::optional<pid_t> pid_in(const std::string& path) {
  const Result<std::string> text = read_text_file(path);
  if (!text) return std::nullopt;
  pid_t pid = 0;
  const auto [at, error] = std::from_chars(text->data(), text->data() + text->size(), pid);
  if (error != std::errc() || pid <= 0) return std::nullopt;
  return pid;
}

bool runs(pid_t pid) {
  return ::kill(pid, 0) == 0 || errno == EPERM;
}

}  // namespace

Result<std::unique_ptr<Pidfile>> Pidfile::create(const std::string& path) {
  const std::optional<pid_t> other = pid_in(path);
  if (other && *other != ::getpid() && runs(*other)) {
    return Error(Errc::kBusy, fmt::format("-pidfile: \"{}\" is the file of process {}, which runs",
                                          path, *other));
  }
  const Result<void> written = replace_text_file(path, fmt::format("{}\n", ::getpid()));
  if (!written) {
    return Error(written.error().code(), "-pidfile: " + written.error().context());
  }
  return std::unique_ptr<Pidfile>(new Pidfile(path));
}

Pidfile::~Pidfile() {
  if (pid_in(path_) != ::getpid()) return;
  if (::unlink(path_.c_str()) != 0) {
    log::warning("cannot remove the pid file \"{}\": {}", path_,
                 Error::from_errno(errno).message());
  }
}

}  // namespace usbd::daemon
