// SPDX-License-Identifier: Apache-2.0
//
// Signals arrive by signalfd, so that no code runs in a signal handler.

#include "daemon/process.h"

#include <array>
#include <cerrno>
#include <csignal>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

namespace usbd::daemon {

Result<Signals> Signals::create() {
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return Error::from_errno(errno, "signalfd");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return Error::from_errno(errno, "eventfd");
  return Signals(std::move(signals), std::move(wake));
}

Signals::Event Signals::wait(std::chrono::milliseconds timeout) {
  std::array<pollfd, 2> fds = {{{signals_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
  const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(timeout.count()));
  if (ready == 0) return Event::kTimeout;
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    return info.ssi_signo == SIGUSR1 ? Event::kStatistics : Event::kStop;
  }
  uint64_t count = 0;
  if (::read(wake_.get(), &count, sizeof(count)) < 0) return Event::kTimeout;  // EINTR, EAGAIN
  return Event::kOther;
}

void Signals::interrupt() const {
  const uint64_t one = 1;
  // Can only fail when the counter is full, and then the waiter is woken already.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void raise_open_files_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

Result<void> lock_memory() {
  // What is mapped later is locked as it is touched: a volume in memory is mapped whole, and takes
  // memory only where it is written.
  if (::mlockall(MCL_CURRENT) == 0 && ::mlockall(MCL_FUTURE | MCL_ONFAULT) == 0) return {};
  return Error::from_errno(errno,
                           "-lock-memory: mlockall is refused; run as root, or raise the limit of "
                           "locked memory (ulimit -l, LimitMEMLOCK= of the service)");
}

}  // namespace usbd::daemon
