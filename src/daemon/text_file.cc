// SPDX-License-Identifier: Apache-2.0
//
// Plain system calls: streams report errors badly.

#include "daemon/text_file.h"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/unique_fd.h"

namespace usbd::daemon {
namespace {

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Error::from_errno(errno);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace

Result<std::string> read_text_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error::from_errno(errno, fmt::format("cannot open \"{}\"", path));
  std::string text;
  char chunk[4096];
  while (true) {
    const ssize_t got = ::read(fd.get(), chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno(errno, fmt::format("cannot read \"{}\"", path));
    if (got == 0) return text;
    text.append(chunk, static_cast<size_t>(got));
    if (text.size() > limits::kTextFileMax) {
      return Error(Errc::kOverflow, fmt::format("\"{}\" is larger than 1 MiB", path));
    }
  }
}

Result<void> replace_text_file(const std::string& path, std::string_view text) {
  const std::string fresh = fmt::format("{}.{}.new", path, ::getpid());
  UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return Error::from_errno(errno, fmt::format("cannot create \"{}\"", fresh));
  Result<void> done = write_all(fd.get(), text);
  if (done && ::rename(fresh.c_str(), path.c_str()) != 0) done = Error::from_errno(errno);
  if (done) return done;
  ::unlink(fresh.c_str());
  return Error(done.error().code(), fmt::format("cannot write \"{}\"", path));
}

}  // namespace usbd::daemon
