// SPDX-License-Identifier: Apache-2.0
//
// Processes by posix_spawn, waited for by pidfd, so that nothing here depends on how the rest of
// the program treats SIGCHLD; if it reaps all children by itself, their status stays unknown.

#include "frontends/nbd/kernel/sync_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace usbd::nbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// What posix_spawn is told, freed at the end.
class SpawnSettings {
 public:
  explicit SpawnSettings(int standard_error) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, standard_error, STDERR_FILENO);
    ::posix_spawn_file_actions_addopen(&actions_, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawnattr_init(&attributes_);
    // No signal of ours is blocked in it, and a Ctrl+C for us is not for it.
    sigset_t none;
    sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  [[nodiscard]] const posix_spawn_file_actions_t* actions() const { return &actions_; }
  [[nodiscard]] const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

/// The first line of what is in the pipe.
std::string first_line(int fd) {
  std::array<char, 512> text{};
  const ssize_t size = ::read(fd, text.data(), text.size());
  std::string line(text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
  return line.substr(0, line.find('\n'));
}

}  // namespace

Result<std::unique_ptr<SyncProcess>> SyncProcess::start(
    const std::vector<std::vector<std::string>>& commands) {
  std::unique_ptr<SyncProcess> process(new SyncProcess);
  for (const std::vector<std::string>& command : commands) {
    USBD_TRY_VOID(process->add(command));
  }
  return process;
}

Result<void> SyncProcess::add(const std::vector<std::string>& command) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return Error::from_errno(errno, "pipe2");
  UniqueFd said(ends[0]);
  const UniqueFd standard_error(ends[1]);
  const SpawnSettings settings(standard_error.get());
  std::vector<char*> words;
  // posix_spawn changes no word; its type is older than const.
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t pid = -1;
  std::string language = "LC_ALL=C";
  std::array<char*, 2> environment = {language.data(), nullptr};
  const int failed = ::posix_spawnp(&pid, words.front(), settings.actions(), settings.attributes(),
                                    words.data(), environment.data());
  if (failed != 0) return Error::from_errno(failed, fmt::format("cannot run {}", command.front()));
  children_.push_back({.pid = pid, .handle = UniqueFd(), .said = std::move(said)});
  children_.back().handle = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (children_.back().handle) return {};
  if (errno != ESRCH) return Error::from_errno(errno, "pidfd_open");
  children_.back().ended = true;  // and the system has reaped it already
  return {};
}

SyncProcess::~SyncProcess() {
  for (const Child& child : children_) {
    if (child.ended) continue;
    // Not by its number, which another process may have by now.
    ::syscall(SYS_pidfd_send_signal, child.handle.get(), SIGKILL, nullptr, 0);
    ::waitpid(child.pid, nullptr, WNOHANG);
  }
}

std::optional<Result<void>> SyncProcess::wait(milliseconds timeout) {
  const steady_clock::time_point deadline = steady_clock::now() + timeout;
  for (Child& child : children_) {
    if (child.ended) continue;
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
    pollfd polled{.fd = child.handle.get(), .events = POLLIN, .revents = 0};
    if (::poll(&polled, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) <= 0) {
      return std::nullopt;
    }
    reap(child);
  }
  return outcome_;
}

void SyncProcess::reap(Child& child) {
  child.ended = true;
  int status = 0;
  if (::waitpid(child.pid, &status, WNOHANG) != child.pid) return;  // somebody else has its status
  if (status == 0 || !outcome_) return;
  const std::string why = first_line(child.said.get());
  outcome_ = Error(Errc::kIo, why.empty() ? fmt::format("sync ended with status {}", status) : why);
}

}  // namespace usbd::nbd
